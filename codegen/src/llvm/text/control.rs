//! Control flow: structured loops and conditions, so that kernels never name a block.

use super::{FunctionText, Value, int_of};

impl FunctionText {
    /// `for i in start..end step step { body }`.
    pub fn for_each(&mut self, start: &Value, end: &Value, step: i64, body: impl FnOnce(&mut Self, &Value)) {
        self.fold(start, end, step, &[], |f, i, _| {
            body(f, i);
            Vec::new()
        });
    }

    /// A loop that carries values: `body` gets the index and the current values and returns the next ones.
    pub fn fold(
        &mut self,
        start: &Value,
        end: &Value,
        step: i64,
        initial: &[Value],
        body: impl FnOnce(&mut Self, &Value, &[Value]) -> Vec<Value>,
    ) -> Vec<Value> {
        self.fold_until(start, |_| end.clone(), step, initial, body)
    }

    /// The same where the end is found anew before each turn.
    pub fn fold_until(
        &mut self,
        start: &Value,
        end: impl FnOnce(&mut Self) -> Value,
        step: i64,
        initial: &[Value],
        body: impl FnOnce(&mut Self, &Value, &[Value]) -> Vec<Value>,
    ) -> Vec<Value> {
        let (head, inside, after) = (self.label("head"), self.label("body"), self.label("after"));
        let before = self.block.clone();
        self.line(&format!("br label %{head}"));
        self.start_block(&head);
        let index = Value { text: self.fresh(), ty: start.ty };
        let carried: Vec<Value> = initial.iter().map(|v| Value { text: self.fresh(), ty: v.ty }).collect();
        let phis_at = self.body.len();
        let end = end(self);
        let more = self.compare("icmp slt", &index, &end);
        self.line(&format!("br {more}, label %{inside}, label %{after}"));
        self.start_block(&inside);
        let next = body(self, &index, &carried);
        assert_eq!(next.len(), carried.len(), "a loop must return as many values as it carries");
        let advanced = self.binary("add nsw", &index, &int_of(index.ty, step));
        let latch = self.block.clone();
        self.line(&format!("br label %{head}"));
        let mut phis = String::new();
        let all = std::iter::once((&index, start, &advanced))
            .chain(carried.iter().zip(initial).zip(&next).map(|((phi, first), next)| (phi, first, next)));
        for (phi, first, next) in all {
            let (ty, first, next) = (phi.ty, &first.text, &next.text);
            phis += &format!("  {} = phi {ty} [ {first}, %{before} ], [ {next}, %{latch} ]\n", phi.text);
        }
        self.body.insert_str(phis_at, &phis);
        self.start_block(&after);
        carried
    }

    /// Writes what `body` writes, or nothing if it fails.
    pub fn attempt<T>(&mut self, body: impl FnOnce(&mut Self) -> Result<T, String>) -> Result<T, String> {
        let (length, block, next) = (self.body.len(), self.block.clone(), self.next);
        let result = body(self);
        if result.is_err() {
            self.body.truncate(length);
            self.block = block;
            self.next = next;
        }
        result
    }

    /// `if condition { body }`.
    pub fn when(&mut self, condition: &Value, body: impl FnOnce(&mut Self)) {
        let (then, after) = (self.label("then"), self.label("after"));
        self.line(&format!("br {condition}, label %{then}, label %{after}"));
        self.start_block(&then);
        body(self);
        self.line(&format!("br label %{after}"));
        self.start_block(&after);
    }

    /// `if condition { then } else { otherwise }` with values of the same types.
    pub fn choose(
        &mut self,
        condition: &Value,
        then: impl FnOnce(&mut Self) -> Vec<Value>,
        otherwise: impl FnOnce(&mut Self) -> Vec<Value>,
    ) -> Vec<Value> {
        let [yes, no, after] = ["then", "else", "after"].map(|kind| self.label(kind));
        self.line(&format!("br {condition}, label %{yes}, label %{no}"));
        self.start_block(&yes);
        let first = then(self);
        let from_first = self.block.clone();
        self.line(&format!("br label %{after}"));
        self.start_block(&no);
        let second = otherwise(self);
        let from_second = self.block.clone();
        self.line(&format!("br label %{after}"));
        self.start_block(&after);
        assert_eq!(first.len(), second.len(), "both sides must have as many values");
        let phi = |(first, second): (&Value, &Value)| {
            let (ty, a, b) = (first.ty, &first.text, &second.text);
            self.define(ty, &format!("phi {ty} [ {a}, %{from_first} ], [ {b}, %{from_second} ]"))
        };
        first.iter().zip(&second).map(phi).collect()
    }

    /// Runs `body` for that of some numbers, in ascending order, which `count` is.
    pub fn for_count(&mut self, counts: &[usize], count: &Value, body: &mut dyn FnMut(&mut Self, usize)) {
        if let &[only] = counts {
            return body(self, only);
        }
        let (fewer, more) = counts.split_at(counts.len() / 2);
        let [is_more, is_fewer] =
            ["icmp sge", "icmp slt"].map(|predicate| self.compare(predicate, count, &int_of(count.ty, more[0] as i64)));
        self.when(&is_fewer, |f| f.for_count(fewer, count, body));
        self.when(&is_more, |f| f.for_count(more, count, body));
    }

    /// A loop that carries values and runs at least once: `body` gets the current values and returns the next ones, and
    /// whether it runs again.
    pub fn repeat(
        &mut self,
        initial: &[Value],
        body: impl FnOnce(&mut Self, &[Value]) -> (Vec<Value>, Value),
    ) -> Vec<Value> {
        let (inside, after) = (self.label("body"), self.label("after"));
        let before = self.block.clone();
        self.line(&format!("br label %{inside}"));
        self.start_block(&inside);
        let carried: Vec<Value> = initial.iter().map(|v| Value { text: self.fresh(), ty: v.ty }).collect();
        let phis_at = self.body.len();
        let (next, again) = body(self, &carried);
        let latch = self.block.clone();
        self.line(&format!("br {again}, label %{inside}, label %{after}"));
        let phi = |((phi, first), next): ((&Value, &Value), &Value)| {
            let (ty, first, next) = (phi.ty, &first.text, &next.text);
            format!("  {} = phi {ty} [ {first}, %{before} ], [ {next}, %{latch} ]\n", phi.text)
        };
        let phis: String = carried.iter().zip(initial).zip(&next).map(phi).collect();
        self.body.insert_str(phis_at, &phis);
        self.start_block(&after);
        next
    }
}
