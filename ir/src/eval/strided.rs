//! Rearranging elements: every one of permute, broadcast and slice is a walk with other strides.

/// Row-major strides.
pub(super) fn strides(sizes: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; sizes.len()];
    for axis in (1..sizes.len()).rev() {
        strides[axis - 1] = strides[axis] * sizes[axis];
    }
    strides
}

/// The elements of `data` at `base` plus the strides times each index of `sizes`, in row-major order of `sizes`.
pub(super) fn walk(data: &[f64], base: usize, sizes: &[usize], strides: &[usize]) -> Vec<f64> {
    let mut out = Vec::with_capacity(sizes.iter().product());
    if sizes.contains(&0) {
        return out;
    }
    let Some((&inner_size, outer_sizes)) = sizes.split_last() else { return vec![data[base]] };
    let inner_stride = strides[outer_sizes.len()];
    let mut index = vec![0; outer_sizes.len()];
    let mut offset = base;
    loop {
        match inner_stride {
            1 => out.extend_from_slice(&data[offset..offset + inner_size]),
            stride => out.extend((0..inner_size).map(|i| data[offset + i * stride])),
        }
        // Counts up from the innermost of the outer axes.
        let mut axis = outer_sizes.len();
        loop {
            if axis == 0 {
                return out;
            }
            axis -= 1;
            index[axis] += 1;
            offset += strides[axis];
            if index[axis] < outer_sizes[axis] {
                break;
            }
            offset -= strides[axis] * outer_sizes[axis];
            index[axis] = 0;
        }
    }
}

/// The elements with axes in another order, and their sizes.
pub(super) fn permuted(data: &[f64], sizes: &[usize], order: &[usize]) -> (Vec<usize>, Vec<f64>) {
    let from = strides(sizes);
    let to_sizes: Vec<_> = order.iter().map(|&axis| sizes[axis]).collect();
    let to_strides: Vec<_> = order.iter().map(|&axis| from[axis]).collect();
    let data = walk(data, 0, &to_sizes, &to_strides);
    (to_sizes, data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn walks() {
        let data: Vec<f64> = (0..6).map(f64::from).collect();
        assert_eq!(strides(&[2, 3, 4]), [12, 4, 1]);
        assert_eq!(permuted(&data, &[2, 3], &[1, 0]), (vec![3, 2], vec![0., 3., 1., 4., 2., 5.]));
        assert_eq!(walk(&data, 1, &[2, 2], &[3, 1]), [1., 2., 4., 5.]);
        assert_eq!(walk(&data, 4, &[], &[]), [4.]);
        assert_eq!(walk(&data, 0, &[3, 0], &[1, 1]), Vec::<f64>::new());
        assert_eq!(walk(&data[..2], 0, &[2, 3], &[1, 0]), [0., 0., 0., 1., 1., 1.]);
    }
}
