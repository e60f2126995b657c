//! The scheduler's books against a simulated cache, in which every slot remembers the tokens that it was computed from.

use std::collections::HashSet;

use proptest::prelude::*;

use super::{Advance, PrefixCounts, Scheduler, SchedulerConfig, Sequence, StepPlan};
use crate::ids::SeqId;
use crate::kv::BlockPool;

const BLOCK: usize = 4;

/// A scheduler with a cache that holds, for each slot, the tokens up to the one whose keys and values would lie there.
struct Simulation {
    scheduler: Scheduler,
    slots: Vec<Vec<u32>>,
    computed: usize,
}

impl Simulation {
    fn new(blocks: usize, token_budget: usize, max_sequences: usize) -> Self {
        let config = SchedulerConfig { token_budget, max_sequences, prefix_cache: true };
        let scheduler = Scheduler::new(config, BlockPool::new(blocks, BLOCK));
        Self { scheduler, slots: vec![Vec::new(); blocks * BLOCK], computed: 0 }
    }

    fn add(&mut self, id: u64, prompt: &[u32]) {
        self.scheduler.add(Sequence::new(SeqId(id), prompt.to_vec()));
    }

    fn slot(&self, advance: &Advance, position: usize) -> usize {
        let sequence = self.scheduler.get(advance.id).unwrap();
        sequence.table().slot(position, BLOCK).unwrap() as usize
    }

    /// What a model would do with a plan: copies, then all writes, then all reads.
    fn compute(&mut self, plan: &StepPlan) {
        for (from, to) in &plan.copies {
            let from = from.0 as usize * BLOCK;
            let copied = self.slots[from..from + BLOCK].to_vec();
            self.slots[to.0 as usize * BLOCK..][..BLOCK].clone_from_slice(&copied);
        }
        let mut written = HashSet::new();
        for advance in &plan.advances {
            let tokens = self.scheduler.get(advance.id).unwrap().tokens().to_vec();
            for position in advance.positions.clone() {
                let slot = self.slot(advance, position);
                assert!(written.insert(slot), "a slot is written twice");
                self.slots[slot] = tokens[..=position].to_vec();
            }
            self.computed += advance.positions.len();
        }
        for advance in &plan.advances {
            let tokens = self.scheduler.get(advance.id).unwrap().tokens();
            for position in 0..advance.positions.end {
                assert_eq!(self.slots[self.slot(advance, position)], tokens[..=position], "what is read is another's");
            }
        }
    }

    /// One step; every sequence that samples gets `token`.
    fn step(&mut self, token: u32) -> StepPlan {
        let plan = self.scheduler.plan();
        self.compute(&plan);
        for advance in &plan.advances {
            self.scheduler.commit(advance, advance.samples.then_some(token));
        }
        self.scheduler.check().unwrap();
        plan
    }

    /// A step that fails after `committed` of its sequences: what it wrote is worthless, and they all go.
    fn fail(&mut self, committed: usize) {
        let plan = self.scheduler.plan();
        let written: Vec<usize> = plan
            .advances
            .iter()
            .flat_map(|advance| advance.positions.clone().map(|position| self.slot(advance, position)))
            .collect();
        written.into_iter().for_each(|slot| self.slots[slot] = vec![u32::MAX]);
        plan.copies.iter().for_each(|(_, to)| self.slots[to.0 as usize * BLOCK] = vec![u32::MAX]);
        plan.advances.iter().take(committed).for_each(|advance| self.scheduler.commit(advance, None));
        plan.advances.iter().for_each(|advance| self.scheduler.fail(advance.id));
        self.scheduler.check().unwrap();
    }

    fn reused(&self, id: u64) -> usize {
        self.scheduler.get(SeqId(id)).unwrap().reused()
    }
}

/// Tokens that count from `first`.
fn text(first: u32, length: usize) -> Vec<u32> {
    (first..first + length as u32).collect()
}

#[test]
fn a_repeated_prompt_is_found_but_for_its_last_token() {
    let mut simulation = Simulation::new(20, 64, 4);
    for (id, length) in [(1, 12), (2, 12), (3, 13), (4, 11), (5, 3)] {
        simulation.add(id, &text(0, length));
        let plan = simulation.step(99);
        let found = if id == 1 { 0 } else { length.min(13) - 1 };
        assert_eq!((simulation.reused(id), plan.tokens()), (found, length - found), "{length} tokens");
        simulation.scheduler.remove(SeqId(id));
    }
    assert_eq!(simulation.scheduler.prefixes(), PrefixCounts { queried: 51, hit: 35 });
    let pool = simulation.scheduler.pool();
    assert_eq!((pool.used(), pool.cached(), pool.free()), (0, 3, 20));
}

#[test]
fn prompts_that_part_inside_a_block_share_up_to_there() {
    let mut simulation = Simulation::new(20, 64, 4);
    simulation.add(1, &text(0, 9));
    simulation.step(99);
    simulation.add(2, &[0, 1, 2, 3, 4, 5, 50, 51, 52]);
    let plan = simulation.step(99);
    assert_eq!((simulation.reused(2), plan.copies.len()), (6, 1), "a block shared, two tokens of the next copied");
    assert_eq!(simulation.scheduler.pool().used(), 5, "three blocks of the first, two more of the second");
    simulation.add(3, &[0, 9, 9, 9]);
    assert_eq!(simulation.step(99).copies.len(), 1);
    assert_eq!(simulation.reused(3), 1);
}

#[test]
fn what_was_generated_is_found_too() {
    let mut simulation = Simulation::new(20, 64, 4);
    simulation.add(1, &text(0, 5));
    (0..4).for_each(|_| drop(simulation.step(7)));
    simulation.scheduler.remove(SeqId(1));
    simulation.add(2, &[0, 1, 2, 3, 4, 7, 7, 7, 20, 21]);
    simulation.step(99);
    assert_eq!(simulation.reused(2), 8);
}

#[test]
fn equal_prompts_that_come_together_are_computed_once() {
    let mut simulation = Simulation::new(200, 16, 64);
    (0..8).for_each(|id| simulation.add(id, &text(0, 40)));
    while simulation.scheduler.waiting() > 0 {
        simulation.step(99);
    }
    assert_eq!(simulation.scheduler.prefixes(), PrefixCounts { queried: 320, hit: 7 * 39 });
    assert_eq!(simulation.scheduler.running(), 8);
    assert!(simulation.scheduler.pool().used() <= 10 + 8, "ten blocks of the prompt, and each its own end");
}

/// A chain of prompts, each with a block more than the one before: each is held up by the one before it, for one step.
#[test]
fn who_waits_for_a_block_waits_one_step() {
    let mut simulation = Simulation::new(100, 64, 16);
    (0..8).for_each(|id| simulation.add(id, &text(0, 4 * (id as usize + 1))));
    for step in 0..8 {
        simulation.step(99);
        assert_eq!(simulation.scheduler.waiting(), 7 - step);
    }
}

#[test]
fn nobody_waits_for_a_sequence_that_is_gone() {
    let mut simulation = Simulation::new(40, 8, 4);
    (1..3).for_each(|id| simulation.add(id, &text(0, 30)));
    simulation.step(99);
    simulation.scheduler.remove(SeqId(1));
    simulation.step(99);
    assert_eq!((simulation.scheduler.running(), simulation.reused(2)), (1, 8), "it goes on where the other stopped");
}

#[test]
fn a_preempted_sequence_comes_back_to_its_blocks() {
    let mut simulation = Simulation::new(7, 64, 4);
    simulation.add(1, &text(0, 8));
    simulation.add(2, &text(100, 11));
    while simulation.scheduler.preemptions() == 0 {
        simulation.step(7);
    }
    let (tokens, before) = (simulation.scheduler.get(SeqId(2)).unwrap().tokens().len(), simulation.computed);
    simulation.scheduler.remove(SeqId(1));
    simulation.step(7);
    assert!(simulation.computed - before < tokens, "all {tokens} tokens are computed again");
    assert_eq!(simulation.scheduler.prefixes().queried, 19, "and it is not counted a second time");
}

#[test]
fn who_wants_all_logits_computes_all_tokens_and_others_find_them() {
    let mut simulation = Simulation::new(20, 64, 4);
    for id in [1, 2] {
        simulation.scheduler.add(Sequence::new(SeqId(id), text(0, 12)).computing_all());
    }
    let plan = simulation.step(99);
    assert_eq!((plan.tokens(), simulation.reused(1), simulation.reused(2)), (24, 0, 0));
    assert_eq!(simulation.scheduler.pool().used(), 3, "and they hold the same blocks from then on");
    simulation.add(3, &text(0, 12));
    simulation.step(99);
    assert_eq!(simulation.reused(3), 11);
    assert_eq!(simulation.scheduler.prefixes(), PrefixCounts { queried: 12, hit: 11 });
}

#[test]
fn nothing_is_found_after_a_failure() {
    let mut simulation = Simulation::new(20, 8, 4);
    simulation.add(1, &text(0, 20));
    simulation.add(2, &text(0, 20));
    simulation.step(99);
    simulation.fail(0);
    simulation.step(99);
    assert_eq!(simulation.reused(2), 0);
}

#[test]
fn the_switch_turns_it_off() {
    let config = SchedulerConfig { token_budget: 64, max_sequences: 4, prefix_cache: false };
    let mut scheduler = Scheduler::new(config, BlockPool::new(20, BLOCK));
    for id in 1..3 {
        scheduler.add(Sequence::new(SeqId(id), text(0, 12)));
        let plan = scheduler.plan();
        assert_eq!(plan.tokens(), 12 + plan.advances.len() - 1);
        plan.advances.iter().for_each(|advance| scheduler.commit(advance, advance.samples.then_some(1)));
    }
    scheduler.check().unwrap();
    (1..3).for_each(|id| scheduler.remove(SeqId(id)));
    assert_eq!((scheduler.pool().cached(), scheduler.prefixes()), (0, PrefixCounts::default()));
}

#[derive(Clone, Debug)]
enum Action {
    /// A prompt: so many tokens of one of a few texts, and an end of its own.
    Add {
        text: u32,
        shared: usize,
        end: Vec<u32>,
        all_logits: bool,
    },
    Remove(u64),
    Step(u32),
    Fail(usize),
}

fn action() -> impl Strategy<Value = Action> {
    let end = prop::collection::vec(0..2u32, 1..8);
    let add = (0..3u32, 0..24usize, end, prop::bool::weighted(0.1));
    prop_oneof![
        6 => add.prop_map(|(text, shared, end, all_logits)| Action::Add { text, shared, end, all_logits }),
        2 => (0..8u64).prop_map(Action::Remove),
        12 => (0..2u32).prop_map(Action::Step),
        1 => (0..3usize).prop_map(Action::Fail),
    ]
}

/// A text of two letters that all sequences with its number share a beginning of.
fn shared_text(number: u32, length: usize) -> Vec<u32> {
    (0..length as u32).map(|position| (position * 7 + number * position / 5) % 2).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever is added, removed, stepped and failed: every slot that a step reads holds just what the sequence's own
    /// tokens would have written there, no step is empty while a sequence is left, the oldest advances, and in the
    /// end no block is held.
    #[test]
    fn a_sequence_reads_what_it_would_have_written(
        actions in prop::collection::vec(action(), 1..150),
        blocks in 12..40usize,
        budget in 1..24usize,
    ) {
        let mut simulation = Simulation::new(blocks, budget, 5);
        let mut next = 0;
        for action in actions {
            match action {
                Action::Add { text, shared, end, all_logits } => {
                    let sequence = Sequence::new(SeqId(next), [shared_text(text, shared), end].concat());
                    simulation.scheduler.add(if all_logits { sequence.computing_all() } else { sequence });
                    next += 1;
                }
                Action::Remove(back) => simulation.scheduler.remove(SeqId(next.saturating_sub(back))),
                Action::Fail(committed) => simulation.fail(committed),
                Action::Step(token) => {
                    let long = |id: &SeqId| simulation.scheduler.get(*id).is_some_and(|s| s.tokens().len() >= 44);
                    let long: Vec<SeqId> = (0..next).map(SeqId).filter(long).collect();
                    long.into_iter().for_each(|id| simulation.scheduler.remove(id));
                    let oldest = (0..next).map(SeqId).find(|id| simulation.scheduler.get(*id).is_some());
                    let plan = simulation.step(token);
                    prop_assert!(plan.tokens() <= budget);
                    prop_assert!(oldest.is_none_or(|oldest| plan.advances.iter().any(|advance| advance.id == oldest))
                        || budget < simulation.scheduler.running());
                }
            }
            prop_assert_eq!(simulation.scheduler.check(), Ok(()));
        }
        (0..next).for_each(|id| simulation.scheduler.remove(SeqId(id)));
        prop_assert_eq!(simulation.scheduler.check(), Ok(()));
        let pool = simulation.scheduler.pool();
        prop_assert_eq!((pool.used(), pool.free()), (0, blocks));
    }

    /// Prompts that wait for each other's blocks all come to their end, and in a cache that holds them all no block of
    /// theirs is computed twice.
    #[test]
    fn what_is_shared_is_computed_once(
        prompts in prop::collection::vec((0..3u32, 0..24usize, 0..4u32), 1..24),
        budget in 1..40usize,
    ) {
        let prompts: Vec<Vec<u32>> = prompts
            .into_iter()
            .map(|(text, shared, end)| [shared_text(text, shared), vec![2 + end; 4 - shared % 4]].concat())
            .collect();
        let mut simulation = Simulation::new(400, budget, 64);
        for (id, prompt) in (0..).zip(&prompts) {
            simulation.add(id, prompt);
        }
        let mut steps = 0;
        let mut left: HashSet<u64> = (0..prompts.len() as u64).collect();
        while !left.is_empty() {
            let plan = simulation.step(9);
            prop_assert!(!plan.advances.is_empty());
            for done in plan.advances.iter().filter(|advance| advance.samples) {
                simulation.scheduler.remove(done.id);
                left.remove(&done.id.0);
            }
            steps += 1;
        }
        let whole: HashSet<&[u32]> =
            prompts.iter().flat_map(|prompt| (1..=prompt.len() / BLOCK).map(|end| &prompt[..end * BLOCK])).collect();
        // Each prompt is a number of full blocks; one that was there as a whole has its last token computed again.
        let most = whole.len() * BLOCK + prompts.len();
        prop_assert!(simulation.computed <= most, "{} computed, {most} at most", simulation.computed);
        prop_assert!(steps <= most, "{steps} steps");
    }
}
