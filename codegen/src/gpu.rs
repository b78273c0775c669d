//! GPU architectures: which ones PTX can be made for.

use crate::error::CodegenError;

/// An NVIDIA architecture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuTarget {
    /// The name that users know it by: `cuda:sm_80`, ...
    pub name: String,
    /// Its compute capability times ten.
    pub capability: u32,
    /// The PTX version that code for it is written in, as LLVM names it.
    pub ptx_feature: &'static str,
}

/// What starts the names of GPU targets.
pub const PREFIX: &str = "cuda:";

/// Compute capabilities and the lowest PTX version that knows each. Newer devices take code for these through the
/// driver's own compiler.
const ARCHITECTURES: [(u32, &str); 5] =
    [(80, "+ptx70"), (86, "+ptx71"), (87, "+ptx74"), (89, "+ptx78"), (90, "+ptx78")];

impl GpuTarget {
    /// The names that [`GpuTarget::parse`] accepts.
    pub fn names() -> Vec<String> {
        ARCHITECTURES.iter().map(|(capability, _)| format!("{PREFIX}sm_{capability}")).collect()
    }

    /// A target by name, such as `cuda:sm_80`.
    ///
    /// # Errors
    /// [`CodegenError::UnknownGpu`] for architectures that no code can be made for.
    pub fn parse(name: &str) -> Result<GpuTarget, CodegenError> {
        let number = name.strip_prefix(PREFIX).and_then(|rest| rest.strip_prefix("sm_"));
        let known =
            number.and_then(|number| ARCHITECTURES.iter().find(|(capability, _)| capability.to_string() == number));
        let Some(&(capability, ptx_feature)) = known else {
            return Err(CodegenError::UnknownGpu { name: name.to_owned(), known: GpuTarget::names().join(", ") });
        };
        Ok(GpuTarget { name: name.to_owned(), capability, ptx_feature })
    }

    /// LLVM's and NVIDIA's name of the architecture: `sm_80`.
    pub fn architecture(&self) -> String {
        format!("sm_{}", self.capability)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_names_parse() {
        for name in GpuTarget::names() {
            let target = GpuTarget::parse(&name).unwrap();
            assert_eq!(format!("{PREFIX}{}", target.architecture()), name);
        }
    }

    #[test]
    fn others_list_the_known_ones() {
        for name in ["cuda:sm_75", "cuda:sm_90a", "sm_80", "cuda", "cuda:sm_080"] {
            let error = GpuTarget::parse(name).unwrap_err().to_string();
            assert!(error.contains(&format!("`{name}`")) && error.contains("cuda:sm_80"), "{error}");
        }
    }
}
