//! The scheduler: admits sequences first come first served, advances decodes before prompts, cuts long prompts into
//! chunks, and preempts the youngest by recomputation when the cache runs out.

use std::collections::VecDeque;

use super::{Advance, Sequence, StepPlan};
use crate::ids::SeqId;
use crate::kv::BlockPool;

/// Limits of one scheduler.
#[derive(Clone, Copy, Debug)]
pub struct SchedulerConfig {
    /// Most tokens computed in one step, over all sequences. At least 1.
    pub token_budget: usize,
    /// Most sequences that run at the same time. At least 1.
    pub max_sequences: usize,
}

/// Which sequence advances when. Owns the sequences and the pool their blocks come from.
#[derive(Debug)]
pub struct Scheduler {
    config: SchedulerConfig,
    pool: BlockPool,
    /// In order of arrival; the last is the first to be preempted.
    running: Vec<Sequence>,
    waiting: VecDeque<Sequence>,
    preemptions: u64,
}

impl Scheduler {
    /// A scheduler without sequences.
    #[must_use]
    pub fn new(config: SchedulerConfig, pool: BlockPool) -> Self {
        Self { config, pool, running: Vec::new(), waiting: VecDeque::new(), preemptions: 0 }
    }

    /// Sequences that hold cache blocks.
    #[must_use]
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Sequences that wait to be admitted.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Times a sequence lost its blocks to an older one.
    #[must_use]
    pub fn preemptions(&self) -> u64 {
        self.preemptions
    }

    /// Forgets every sequence and starts with a new pool of the same size: the last resort when the books are broken.
    pub fn clear(&mut self) {
        self.running.clear();
        self.waiting.clear();
        self.pool = BlockPool::new(self.pool.total(), self.pool.block_size());
    }

    /// The pool, for its counts.
    #[must_use]
    pub fn pool(&self) -> &BlockPool {
        &self.pool
    }

    /// Takes in a sequence. The caller has checked that the whole pool could hold it at its longest.
    pub fn add(&mut self, sequence: Sequence) {
        self.waiting.push_back(sequence);
    }

    /// The sequence, running or waiting.
    #[must_use]
    pub fn get(&self, id: SeqId) -> Option<&Sequence> {
        self.running.iter().chain(&self.waiting).find(|sequence| sequence.id == id)
    }

    /// Removes a finished or cancelled sequence and frees its blocks. Unknown ids are ignored.
    pub fn remove(&mut self, id: SeqId) {
        if let Some(index) = self.running.iter().position(|sequence| sequence.id == id) {
            let mut sequence = self.running.remove(index);
            self.pool.release(sequence.table.take());
        }
        self.waiting.retain(|sequence| sequence.id != id);
    }

    /// Plans one step. Blocks for every token of the plan are held when it returns. An empty plan means nothing to do.
    pub fn plan(&mut self) -> StepPlan {
        let mut budget = self.config.token_budget;
        let mut chosen: Vec<(SeqId, usize)> = Vec::new();
        self.choose_running(&mut budget, &mut chosen, |remaining| remaining == 1);
        self.choose_running(&mut budget, &mut chosen, |remaining| remaining > 1);
        self.admit(&mut budget, &mut chosen);
        StepPlan { advances: chosen.into_iter().filter_map(|(id, count)| self.advance_of(id, count)).collect() }
    }

    /// Records that the tokens of one advance are in the cache, and the token sampled after them.
    pub fn commit(&mut self, advance: &Advance, sampled: Option<u32>) {
        if let Some(sequence) = self.running.iter_mut().find(|sequence| sequence.id == advance.id) {
            sequence.advance(advance.positions.len());
            if let Some(token) = sampled {
                sequence.append(token);
            }
        }
    }

    /// Checks pool and tables against each other.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn check(&self) -> Result<(), String> {
        self.pool.check(self.running.iter().map(|sequence| sequence.table.blocks()))?;
        match self.waiting.iter().find(|sequence| !sequence.table.blocks().is_empty()) {
            Some(sequence) => Err(format!("sequence {} waits and holds blocks", sequence.id.0)),
            None => Ok(()),
        }
    }

    /// Chooses among the running, oldest first. A sequence that lost its blocks on the way is no longer running, and
    /// is taken out of what was chosen before it.
    fn choose_running(&mut self, budget: &mut usize, chosen: &mut Vec<(SeqId, usize)>, wanted: impl Fn(usize) -> bool) {
        let mut index = 0;
        while index < self.running.len() && *budget > 0 {
            let sequence = &self.running[index];
            let (id, remaining) = (sequence.id, sequence.remaining());
            if !wanted(remaining) || chosen.iter().any(|(other, _)| *other == id) {
                index += 1;
                continue;
            }
            let count = remaining.min(*budget);
            if self.make_room(index, count, budget, chosen) {
                chosen.push((id, count));
                *budget -= count;
            }
            index += 1;
        }
    }

    /// Gets blocks for `count` more tokens of the running sequence at `index`, preempting younger ones as needed.
    /// False when the sequence itself had to be preempted.
    fn make_room(&mut self, index: usize, count: usize, budget: &mut usize, chosen: &mut Vec<(SeqId, usize)>) -> bool {
        loop {
            if self.reserve(index, count) {
                return true;
            }
            let youngest = self.running.len() - 1;
            let id = self.running[youngest].id;
            self.preempt_youngest();
            if let Some(at) = chosen.iter().position(|(other, _)| *other == id) {
                *budget += chosen.remove(at).1;
            }
            if youngest == index {
                return false;
            }
        }
    }

    /// Holds blocks so that the sequence has room for `count` more tokens. False, with what it got kept, when the pool
    /// is empty.
    fn reserve(&mut self, index: usize, count: usize) -> bool {
        let sequence = &mut self.running[index];
        let needed = self.pool.blocks_for(sequence.computed() + count);
        while sequence.table.blocks().len() < needed {
            match self.pool.allocate() {
                Some(block) => sequence.table.push(block),
                None => return false,
            }
        }
        true
    }

    fn preempt_youngest(&mut self) {
        if let Some(mut sequence) = self.running.pop() {
            self.pool.release(sequence.table.take());
            sequence.forget();
            self.preemptions += 1;
            self.waiting.push_front(sequence);
        }
    }

    /// Admits waiting sequences, oldest first, while budget, places and blocks last. Admission never preempts: a
    /// sequence enters only when all its tokens and the next find room, or when nothing else runs. With room for its
    /// first chunk alone it would be preempted, and computed again in vain, as long as an older one runs.
    fn admit(&mut self, budget: &mut usize, chosen: &mut Vec<(SeqId, usize)>) {
        while *budget > 0 && self.running.len() < self.config.max_sequences {
            let Some(next) = self.waiting.front() else { return };
            let count = next.remaining().min(*budget);
            let needed = self.pool.blocks_for(next.remaining() + 1);
            if needed > self.pool.free() && !self.running.is_empty() {
                return;
            }
            let Some(sequence) = self.waiting.pop_front() else { return };
            chosen.push((sequence.id, count));
            *budget -= count;
            let index = self.running.partition_point(|other| other.id < sequence.id);
            self.running.insert(index, sequence);
            self.reserve(index, count);
        }
    }

    fn advance_of(&self, id: SeqId, count: usize) -> Option<Advance> {
        let sequence = self.running.iter().find(|sequence| sequence.id == id)?;
        let start = sequence.computed();
        Some(Advance { id, positions: start..start + count, samples: count == sequence.remaining() })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scheduler(blocks: usize, token_budget: usize, max_sequences: usize) -> Scheduler {
        Scheduler::new(SchedulerConfig { token_budget, max_sequences }, BlockPool::new(blocks, 4))
    }

    fn sequence(id: u64, length: usize) -> Sequence {
        Sequence::new(SeqId(id), vec![1; length])
    }

    fn run(scheduler: &mut Scheduler) -> StepPlan {
        let plan = scheduler.plan();
        for advance in &plan.advances {
            scheduler.commit(advance, advance.samples.then_some(2));
        }
        scheduler.check().unwrap();
        plan
    }

    #[test]
    fn a_long_prompt_is_cut_into_chunks_and_decodes_go_first() {
        let mut scheduler = scheduler(100, 8, 4);
        scheduler.add(sequence(1, 2));
        assert_eq!(run(&mut scheduler).advances, [Advance { id: SeqId(1), positions: 0..2, samples: true }]);
        scheduler.add(sequence(2, 20));
        for (positions, samples) in [(0..7, false), (7..14, false), (14..20, true)] {
            let plan = run(&mut scheduler);
            assert_eq!(plan.advances[0].id, SeqId(1), "the running stream does not wait for the prompt");
            assert_eq!(plan.advances[1], Advance { id: SeqId(2), positions, samples });
        }
    }

    #[test]
    fn the_youngest_is_preempted_and_comes_back_with_all_its_tokens() {
        let mut scheduler = scheduler(3, 64, 4);
        scheduler.add(sequence(1, 4));
        scheduler.add(sequence(2, 4));
        run(&mut scheduler);
        let plan = run(&mut scheduler); // both need a second block, one is left
        assert_eq!(plan.advances.len(), 1);
        assert_eq!(plan.advances[0].id, SeqId(1));
        assert_eq!(scheduler.preemptions(), 1);
        let waiting = scheduler.get(SeqId(2)).unwrap();
        assert_eq!((waiting.tokens().len(), waiting.computed()), (5, 0), "the sampled token is kept");
        scheduler.remove(SeqId(1));
        assert_eq!(run(&mut scheduler).advances, [Advance { id: SeqId(2), positions: 0..5, samples: true }]);
    }

    /// A prompt that does not fit beside a running sequence waits for it; it is not begun again and again.
    #[test]
    fn a_prompt_without_room_waits_and_is_computed_once() {
        let mut scheduler = scheduler(10, 8, 4);
        scheduler.add(sequence(1, 4));
        run(&mut scheduler);
        scheduler.add(sequence(2, 36));
        let mut computed = 0;
        for step in 0..40 {
            if step == 20 {
                scheduler.remove(SeqId(1));
            }
            let plan = run(&mut scheduler);
            let of_second = plan.advances.iter().filter(|advance| advance.id == SeqId(2));
            computed += of_second.map(|advance| advance.positions.len()).sum::<usize>();
            if scheduler.get(SeqId(2)).is_some_and(|sequence| sequence.tokens().len() > 37) {
                break;
            }
        }
        assert_eq!(computed, 37, "each token of the prompt once, and the first generated one");
        assert_eq!(scheduler.preemptions(), 0);
    }

    #[test]
    fn no_more_than_the_maximum_run() {
        let mut scheduler = scheduler(100, 64, 2);
        (0..5).for_each(|id| scheduler.add(sequence(id, 3)));
        run(&mut scheduler);
        assert_eq!((scheduler.running(), scheduler.waiting()), (2, 3));
    }

    #[derive(Clone, Debug)]
    enum Action {
        Add(usize),
        Remove(u64),
        Step,
    }

    fn action() -> impl Strategy<Value = Action> {
        prop_oneof![
            (1..40usize).prop_map(Action::Add),
            (0..20u64).prop_map(Action::Remove),
            Just(Action::Step),
            Just(Action::Step)
        ]
    }

    proptest! {
        /// Whatever is added, removed and stepped: no block is lost or shared, each position is computed in order,
        /// the budget holds, and the oldest sequence always makes progress.
        #[test]
        fn no_block_is_lost_and_no_token_skipped(actions in prop::collection::vec(action(), 1..120), budget in 1..20usize) {
            let mut scheduler = scheduler(16, budget, 3);
            let mut next = 0;
            for action in actions {
                match action {
                    Action::Add(length) => { scheduler.add(sequence(next, length)); next += 1; }
                    Action::Remove(id) => scheduler.remove(SeqId(id)),
                    Action::Step => {
                        let long: Vec<_> = (0..next).map(SeqId)
                            .filter(|id| scheduler.get(*id).is_some_and(|s| s.tokens().len() > 60)).collect();
                        long.into_iter().for_each(|id| scheduler.remove(id));
                        let oldest = (0..next).map(SeqId).find(|id| scheduler.get(*id).is_some());
                        let plan = scheduler.plan();
                        prop_assert!(plan.tokens() <= budget);
                        for advance in &plan.advances {
                            let sequence = scheduler.get(advance.id).unwrap();
                            prop_assert_eq!(advance.positions.start, sequence.computed());
                            prop_assert!(!advance.positions.is_empty());
                            prop_assert_eq!(advance.samples, advance.positions.end == sequence.tokens().len());
                            prop_assert!(sequence.table().slot(advance.positions.end - 1, 4).is_some());
                            scheduler.commit(advance, advance.samples.then_some(9));
                        }
                        prop_assert!(oldest.is_none() || plan.advances.iter().any(|a| Some(a.id) == oldest)
                            || budget < scheduler.running());
                    }
                }
                prop_assert_eq!(scheduler.check(), Ok(()));
            }
        }
    }
}
