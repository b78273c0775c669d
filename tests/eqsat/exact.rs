//! An exact extractor: branch and bound. It shows how far the greedy one is from the best.

use std::collections::{BTreeMap, BTreeSet};

/// A way to compute a class: the classes that it needs, and its price.
type Way = (BTreeSet<usize>, f64);

/// Which classes must be computed, and in which ways each can be. What is needed twice is paid once.
#[derive(Clone, Debug, Default)]
pub struct Problem {
    /// The ways, by class.
    pub ways: Vec<Vec<Way>>,
    /// The classes that must be computed.
    pub roots: BTreeSet<usize>,
}

impl Problem {
    /// The problem of an e-graph's candidates (class, operands, price), whatever names its classes.
    pub fn new<I: Ord + Copy>(candidates: impl IntoIterator<Item = (I, Vec<I>, f64)>, roots: &[I]) -> Problem {
        let candidates: Vec<_> = candidates.into_iter().collect();
        let names: BTreeSet<I> = candidates.iter().map(|(class, ..)| *class).collect();
        let numbers: BTreeMap<I, usize> = names.into_iter().enumerate().map(|(number, name)| (name, number)).collect();
        let mut ways = vec![Vec::new(); numbers.len()];
        for (class, operands, price) in candidates {
            ways[numbers[&class]].push((operands.iter().map(|operand| numbers[operand]).collect(), price));
        }
        Problem { ways, roots: roots.iter().map(|root| numbers[root]).collect() }
    }

    /// The price of the cheapest choice of one way for each class that is needed, without circles. Infinite if there is none.
    pub fn best(&self) -> f64 {
        let mut search = Search { ways: self.worthwhile(), best: f64::INFINITY, chosen: BTreeMap::new() };
        search.decide(&self.roots, 0.0);
        search.best
    }

    /// Ways without those that need as much as another of their class and cost as much: the other can stand for them in
    /// every choice, which gets no dearer and no circle by it.
    fn worthwhile(&self) -> Vec<Vec<Way>> {
        let of_class = |ways: &Vec<Way>| {
            let mut kept: Vec<Way> = Vec::new();
            let mut sorted = ways.clone();
            sorted.sort_by(|(_, a), (_, b)| a.total_cmp(b));
            for way in sorted {
                if kept.iter().all(|(needs, _)| !needs.is_subset(&way.0)) {
                    kept.push(way);
                }
            }
            kept
        };
        self.ways.iter().map(of_class).collect()
    }
}

struct Search {
    ways: Vec<Vec<Way>>,
    best: f64,
    chosen: BTreeMap<usize, BTreeSet<usize>>,
}

impl Search {
    /// Tries every way for one of the classes that are needed and undecided; all others will cost their cheapest at least.
    fn decide(&mut self, needed: &BTreeSet<usize>, paid: f64) {
        let cheapest = |class: &usize| self.ways[*class].first().map_or(f64::INFINITY, |(_, price)| *price);
        if paid + needed.iter().map(cheapest).sum::<f64>() >= self.best {
            return;
        }
        let Some(&class) = needed.iter().min_by_key(|&&class| self.ways[class].len()) else {
            if self.is_acyclic() {
                self.best = paid;
            }
            return;
        };
        for (needs, price) in self.ways[class].clone() {
            let mut needed = needed.clone();
            needed.remove(&class);
            needed.extend(needs.iter().filter(|&&other| other != class && !self.chosen.contains_key(&other)));
            self.chosen.insert(class, needs);
            self.decide(&needed, paid + price);
            self.chosen.remove(&class);
        }
    }

    fn is_acyclic(&self) -> bool {
        let mut done: BTreeSet<usize> = BTreeSet::new();
        while done.len() < self.chosen.len() {
            let ready = |(class, needs): &(&usize, &BTreeSet<usize>)| !done.contains(class) && needs.is_subset(&done);
            let next: Vec<usize> = self.chosen.iter().filter(ready).map(|(class, _)| *class).collect();
            if next.is_empty() {
                return false;
            }
            done.extend(next);
        }
        true
    }
}

/// Every choice of a way for every class, one by one: so slow that nothing is left to get wrong.
fn by_hand(problem: &Problem) -> f64 {
    let mut best = f64::INFINITY;
    let choices: usize = problem.ways.iter().map(Vec::len).product();
    for mut number in 0..choices {
        let mut chosen: Vec<&Way> = Vec::new();
        for ways in &problem.ways {
            chosen.push(&ways[number % ways.len()]);
            number /= ways.len();
        }
        let mut needed = problem.roots.clone();
        while let Some(new) = needed.iter().flat_map(|&class| &chosen[class].0).find(|&class| !needed.contains(class)) {
            needed.insert(*new);
        }
        let mut done: BTreeSet<usize> = BTreeSet::new();
        while let Some(&class) = needed.iter().find(|&class| !done.contains(class) && chosen[*class].0.is_subset(&done))
        {
            done.insert(class);
        }
        if done == needed {
            best = best.min(needed.iter().map(|&class| chosen[class].1).sum());
        }
    }
    best
}

/// On problems with shared classes, circles, and classes that nothing can compute.
#[test]
fn the_exact_extractor_finds_what_trying_everything_finds() {
    // MMIX's linear congruential generator (Knuth, "The Art of Computer Programming", volume 2).
    let mut state: u64 = 7;
    let mut below = |end: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % end
    };
    let (mut impossible, mut shared) = (0, 0);
    for _ in 0..2000 {
        let classes = 2 + below(6);
        let mut ways: Vec<Vec<Way>> = Vec::new();
        for _ in 0..classes {
            let mut of_class: Vec<Way> = Vec::new();
            for _ in 0..1 + below(3) {
                let needs = [below(2 * classes), below(2 * classes)].into_iter().filter(|&class| class < classes);
                of_class.push((needs.collect(), 1.0 + below(8) as f64));
            }
            ways.push(of_class);
        }
        let problem = Problem { ways, roots: [below(classes), below(classes)].into() };
        let (found, expected) = (problem.best(), by_hand(&problem));
        assert_eq!(found, expected, "{problem:?}");
        impossible += usize::from(expected.is_infinite());
        shared += usize::from(problem.roots.len() > 1 && expected.is_finite());
    }
    assert!(impossible > 50 && shared > 50, "{impossible} of them have no solution, {shared} several roots");
}
