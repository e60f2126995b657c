//! The scheduler: admits sequences first come first served, advances decodes before prompts, cuts long prompts into
//! chunks, lets them begin from what others have computed, and preempts the youngest when the cache runs out.

use std::collections::VecDeque;

use super::{Advance, Sequence, StepPlan};
use crate::ids::{BlockId, SeqId};
use crate::kv::{BlockPool, PrefixMatch};

/// Limits of one scheduler.
#[derive(Clone, Copy, Debug)]
pub struct SchedulerConfig {
    /// Most tokens computed in one step, over all sequences. At least 1.
    pub token_budget: usize,
    /// Most sequences that run at the same time. At least 1.
    pub max_sequences: usize,
    /// Whether a sequence begins from the blocks that others computed of the same tokens.
    pub prefix_cache: bool,
}

/// How much of the prompts did not have to be computed, since the start. In tokens; a preempted sequence that comes
/// back is not counted again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PrefixCounts {
    /// Tokens of the prompts that were looked up.
    pub queried: u64,
    /// Of those, the tokens that were found.
    pub hit: u64,
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
    prefixes: PrefixCounts,
}

impl Scheduler {
    /// A scheduler without sequences.
    #[must_use]
    pub fn new(config: SchedulerConfig, pool: BlockPool) -> Self {
        let (running, waiting, prefixes) = (Vec::new(), VecDeque::new(), PrefixCounts::default());
        Self { config, pool, running, waiting, preemptions: 0, prefixes }
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

    /// What was looked up in the cache and found there.
    #[must_use]
    pub fn prefixes(&self) -> PrefixCounts {
        self.prefixes
    }

    /// Forgets every sequence and all that is cached, and starts with a new pool of the same size: the last resort when
    /// the books are broken.
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

    /// Removes a sequence whose computation failed. Where the fault lies and what it has touched is not known, so
    /// nothing that was computed until now is found again.
    pub fn fail(&mut self, id: SeqId) {
        self.pool.forget();
        self.remove(id);
    }

    /// Plans one step. Blocks for every token of the plan are held when it returns. An empty plan means nothing to do.
    pub fn plan(&mut self) -> StepPlan {
        let mut budget = self.config.token_budget;
        let mut chosen: Vec<(SeqId, usize)> = Vec::new();
        self.choose_running(&mut budget, &mut chosen, |remaining| remaining == 1);
        self.choose_running(&mut budget, &mut chosen, |remaining| remaining > 1);
        let copies = self.admit(&mut budget, &mut chosen);
        // Held until here, so that no other sequence of this plan was given them. Before the next plan they are copied.
        copies.iter().for_each(|(from, _)| self.pool.release([*from]));
        let advances = chosen.into_iter().filter_map(|(id, count)| self.advance_of(id, count)).collect();
        StepPlan { advances, copies }
    }

    /// Records that the tokens of one advance are in the cache, where others find the blocks that are full by now, and
    /// the token sampled after them.
    pub fn commit(&mut self, advance: &Advance, sampled: Option<u32>) {
        let Some(sequence) = self.running.iter_mut().find(|sequence| sequence.id == advance.id) else { return };
        let size = self.pool.block_size();
        let full = sequence.computed() / size;
        sequence.advance(advance.positions.len());
        if self.config.prefix_cache {
            for index in full..sequence.computed() / size {
                let (table, tokens) = (sequence.table.blocks(), &sequence.tokens()[index * size..][..size]);
                let before = index.checked_sub(1).map(|before| table[before]);
                let block = self.pool.enter(before, table[index], tokens);
                sequence.table.replace(index, block);
            }
        }
        if let Some(token) = sampled {
            sequence.append(token);
        }
    }

    /// Checks pool, tables and index against each other.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn check(&self) -> Result<(), String> {
        self.pool.check(self.running.iter().map(|sequence| sequence.table.blocks()))?;
        self.running.iter().try_for_each(|sequence| self.check_table(sequence))?;
        match self.waiting.iter().find(|sequence| !sequence.table.blocks().is_empty()) {
            Some(sequence) => Err(format!("sequence {} waits and holds blocks", sequence.id.0)),
            None => Ok(()),
        }
    }

    /// A block that is still to be written is the sequence's own; one that is found by its tokens has the sequence's.
    fn check_table(&self, sequence: &Sequence) -> Result<(), String> {
        let (size, table, id) = (self.pool.block_size(), sequence.table.blocks(), sequence.id.0);
        let full = sequence.computed() / size;
        if table.len() < self.pool.blocks_for(sequence.computed()) {
            return Err(format!("sequence {id} has lost blocks: {} tokens in {}", sequence.computed(), table.len()));
        }
        for (index, block) in table.iter().enumerate() {
            let before = index.checked_sub(1).map(|before| table[before]);
            let sound = match self.pool.entry(*block) {
                Some(entry) => index < full && entry == (before, &sequence.tokens()[index * size..][..size]),
                None => index < full || self.pool.holders(*block) == 1,
            };
            if !sound {
                return Err(format!("block {}, number {index} of sequence {id}, is not its own", block.0));
            }
        }
        Ok(())
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
    ///
    /// Returns the blocks to be copied, which are held.
    fn admit(&mut self, budget: &mut usize, chosen: &mut Vec<(SeqId, usize)>) -> Vec<(BlockId, BlockId)> {
        let mut copies = Vec::new();
        while *budget > 0 && self.running.len() < self.config.max_sequences {
            let Some(next) = self.waiting.front() else { break };
            let found = self.reusable(next);
            let waits = !self.has_room(next, &found) || self.is_being_computed(next, &found);
            if waits && !self.running.is_empty() {
                break;
            }
            let Some(mut sequence) = self.waiting.pop_front() else { break };
            copies.extend(self.begin(&mut sequence, found));
            let count = sequence.remaining().min(*budget);
            chosen.push((sequence.id, count));
            *budget -= count;
            let index = self.running.partition_point(|other| other.id < sequence.id);
            self.running.insert(index, sequence);
            self.reserve(index, count);
        }
        copies
    }

    fn may_reuse(&self, sequence: &Sequence) -> bool {
        self.config.prefix_cache && sequence.reuses
    }

    /// What is there of a sequence's tokens, but for the last: that is computed, since its logits are wanted.
    fn reusable(&self, sequence: &Sequence) -> PrefixMatch {
        match (self.may_reuse(sequence), sequence.tokens()) {
            (true, [tokens @ .., _]) => self.pool.find(tokens),
            _ => PrefixMatch::default(),
        }
    }

    /// Whether there are blocks for all tokens of a waiting sequence and the next. What others hold of it costs
    /// nothing.
    fn has_room(&self, sequence: &Sequence, found: &PrefixMatch) -> bool {
        let shared = found.blocks.iter().filter(|block| self.pool.holders(**block) > 0).count();
        self.pool.blocks_for(sequence.tokens().len() + 1) - shared <= self.pool.free()
    }

    /// Whether a running sequence is about to compute the block that follows what was found of a waiting one, so that
    /// it will be there to be shared.
    ///
    /// The wait is for one step. Where budget is left for an admission, every running sequence has been given all it
    /// had left to compute, and this block with it. So those further back may wait too, and stay in their order.
    fn is_being_computed(&self, sequence: &Sequence, found: &PrefixMatch) -> bool {
        let (size, known) = (self.pool.block_size(), found.blocks.len());
        let Some(wanted) = sequence.tokens().get(..(known + 1) * size) else { return false };
        let same = |other: &Sequence| other.computed() / size == known && other.tokens().starts_with(wanted);
        self.may_reuse(sequence) && self.running.iter().any(same)
    }

    /// Gives a sequence the blocks that were found of it. Where another block begins as it goes on, it gets one of its
    /// own to copy that to, if there is room for the other beside it; the copy is returned, and the other held.
    fn begin(&mut self, sequence: &mut Sequence, found: PrefixMatch) -> Option<(BlockId, BlockId)> {
        let tokens = sequence.tokens().len();
        let own = self.pool.blocks_for(tokens + 1) - found.blocks.len();
        let mut computed = found.blocks.len() * self.pool.block_size();
        for block in found.blocks {
            self.pool.hold(block);
            sequence.table.push(block);
        }
        let mut copy = None;
        if let Some((from, length)) = found.begun {
            self.pool.hold(from);
            match self.pool.free() >= own {
                true => copy = self.pool.allocate().map(|to| (from, to)),
                false => self.pool.release([from]),
            }
            if let Some((_, to)) = copy {
                sequence.table.push(to);
                computed += length;
            }
        }
        if sequence.begin(computed) && self.may_reuse(sequence) {
            self.prefixes.queried += tokens as u64;
            self.prefixes.hit += computed as u64;
        }
        copy
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
        Scheduler::new(SchedulerConfig { token_budget, max_sequences, prefix_cache: true }, BlockPool::new(blocks, 4))
    }

    fn sequence(id: u64, length: usize) -> Sequence {
        Sequence::new(SeqId(id), vec![10 + id as u32; length])
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
        assert_eq!(run(&mut scheduler).advances, [Advance { id: SeqId(2), positions: 4..5, samples: true }]);
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
