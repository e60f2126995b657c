//! Stop strings over text that comes in pieces.
//!
//! An automaton of Aho and Corasick ("Efficient string matching", CACM 1975) reads the text once, whatever the number of stop
//! strings, and its state is the longest end of the text that could still become a stop string: exactly what must be held
//! back. Must not know tokens.
//!
//! The text ends at the first byte at which any stop string is complete; of several complete there, the longest counts, which
//! is the one that starts leftmost. The stop string and what follows are dropped.
//!
//! All cuts fall between characters: stop strings are whole characters, so the held end starts where a character starts.

use std::collections::VecDeque;
use std::sync::Arc;

/// What one piece of text let through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StopOutcome {
    /// Text that is now certain to come before any stop string.
    pub released: String,
    /// The stop string that ended the text, by its index in the request. From then on nothing is released.
    pub matched: Option<usize>,
}

/// Watches one text for stop strings. A clone is a matcher in the same state; clones share the automaton.
#[derive(Clone, Debug)]
pub struct StopMatcher {
    automaton: Arc<Automaton>,
    node: u32,
    /// The end of the text that may still become a stop string; as long as `node` is deep.
    held: String,
    matched: Option<usize>,
}

impl StopMatcher {
    /// Watches for these strings. Empty ones are passed over: they would end every text at its start.
    #[must_use]
    pub fn new(stops: &[String]) -> Self {
        Self { automaton: Arc::new(Automaton::new(stops)), node: ROOT, held: String::new(), matched: None }
    }

    /// Takes the next piece of text. Releases all but the longest end that may still become a stop string.
    pub fn push(&mut self, piece: &str) -> StopOutcome {
        if self.matched.is_some() {
            return StopOutcome { released: String::new(), matched: self.matched };
        }
        let before = self.held.len();
        self.held.push_str(piece);
        for (index, byte) in piece.bytes().enumerate() {
            self.node = self.automaton.next(self.node, byte);
            if let Some(found) = self.automaton.longest_at(self.node) {
                self.matched = Some(found.index);
                self.held.truncate(before + index + 1 - found.bytes);
                return StopOutcome { released: std::mem::take(&mut self.held), matched: self.matched };
            }
        }
        let kept = self.held.split_off(self.held.len() - self.automaton.depth(self.node));
        StopOutcome { released: std::mem::replace(&mut self.held, kept), matched: None }
    }

    /// The text is over: what was held back is no stop string any more and comes out. Empty after a match.
    #[must_use]
    pub fn finish(self) -> String {
        self.held
    }

    /// The stop string that ended the text, by its index in the request.
    #[must_use]
    pub fn matched(&self) -> Option<usize> {
        self.matched
    }

    /// The text held back at the moment.
    #[must_use]
    pub fn held(&self) -> &str {
        &self.held
    }
}

const ROOT: u32 = 0;

/// A stop string: its place in the request and its length.
#[derive(Clone, Copy, Debug)]
struct Found {
    index: usize,
    bytes: usize,
}

/// A node stands for a prefix of at least one stop string.
#[derive(Debug, Default)]
struct Node {
    children: Vec<(u8, u32)>,
    /// The node of the longest proper end of this prefix that is itself a prefix.
    fallback: u32,
    depth: usize,
    /// The longest stop string this prefix ends with.
    longest: Option<Found>,
}

#[derive(Debug)]
struct Automaton {
    nodes: Vec<Node>,
}

impl Automaton {
    fn new(stops: &[String]) -> Self {
        let mut automaton = Self { nodes: vec![Node::default()] };
        for (index, stop) in stops.iter().enumerate() {
            automaton.insert(index, stop);
        }
        automaton.link();
        automaton
    }

    fn insert(&mut self, index: usize, stop: &str) {
        let mut node = ROOT;
        for byte in stop.bytes() {
            node = match self.child(node, byte) {
                Some(child) => child,
                None => self.add_child(node, byte),
            };
        }
        if node != ROOT {
            // Of equal stop strings the first keeps its index.
            self.nodes[node as usize].longest.get_or_insert(Found { index, bytes: stop.len() });
        }
    }

    fn add_child(&mut self, parent: u32, byte: u8) -> u32 {
        // 64 stop strings of 1024 bytes make 65,536 nodes at most.
        let child = self.nodes.len() as u32;
        let depth = self.nodes[parent as usize].depth + 1;
        self.nodes.push(Node { depth, ..Node::default() });
        self.nodes[parent as usize].children.push((byte, child));
        child
    }

    /// Sets fallbacks, shallow nodes first, because a node's fallback is found from its parent's.
    fn link(&mut self) {
        let mut queue = VecDeque::from([ROOT]);
        while let Some(node) = queue.pop_front() {
            for (byte, child) in self.nodes[node as usize].children.clone() {
                let fallback = if node == ROOT { ROOT } else { self.next(self.nodes[node as usize].fallback, byte) };
                let inherited = self.nodes[fallback as usize].longest;
                let child_node = &mut self.nodes[child as usize];
                child_node.fallback = fallback;
                // A stop string that is the whole prefix is longer than any that only ends it.
                child_node.longest = child_node.longest.or(inherited);
                queue.push_back(child);
            }
        }
    }

    fn child(&self, node: u32, byte: u8) -> Option<u32> {
        self.nodes[node as usize].children.iter().find(|&&(label, _)| label == byte).map(|&(_, child)| child)
    }

    /// The node after one more byte. Falls back as often as it has gone deeper, so a text costs time linear in its length.
    fn next(&self, mut node: u32, byte: u8) -> u32 {
        loop {
            if let Some(child) = self.child(node, byte) {
                return child;
            }
            if node == ROOT {
                return ROOT;
            }
            node = self.nodes[node as usize].fallback;
        }
    }

    fn longest_at(&self, node: u32) -> Option<Found> {
        self.nodes[node as usize].longest
    }

    fn depth(&self, node: u32) -> usize {
        self.nodes[node as usize].depth
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn strings(stops: &[&str]) -> Vec<String> {
        stops.iter().map(|&stop| stop.to_owned()).collect()
    }

    /// What a search through the whole text says: where it is cut, and by which stop string.
    fn naive(text: &str, stops: &[String]) -> (String, Option<usize>) {
        for end in 1..=text.len() {
            let head = &text.as_bytes()[..end];
            let ending = (0..stops.len()).filter(|&index| head.ends_with(stops[index].as_bytes()));
            if let Some(index) = ending.max_by_key(|&index| (stops[index].len(), std::cmp::Reverse(index))) {
                return (text[..end - stops[index].len()].to_owned(), Some(index));
            }
        }
        (text.to_owned(), None)
    }

    /// The longest end of `text` that begins a stop string without being one.
    fn naive_held<'a>(text: &'a str, stops: &[String]) -> &'a str {
        let ends = text.char_indices().map(|(start, _)| &text[start..]);
        ends.into_iter().find(|end| stops.iter().any(|stop| stop.starts_with(end))).unwrap_or("")
    }

    /// Feeds the pieces and checks after each one that just the live end is held.
    fn feed(pieces: &[&str], stops: &[String]) -> (String, Option<usize>) {
        let mut matcher = StopMatcher::new(stops);
        let (mut text, mut out) = (String::new(), String::new());
        for piece in pieces {
            text.push_str(piece);
            let outcome = matcher.push(piece);
            out.push_str(&outcome.released);
            assert_eq!(outcome.matched, matcher.matched());
            let held = if outcome.matched.is_some() { "" } else { naive_held(&text, stops) };
            assert_eq!(matcher.held(), held, "after {text:?}");
        }
        let matched = matcher.matched();
        out.push_str(&matcher.finish());
        (out, matched)
    }

    /// The pieces of a text cut wherever the bit of a boundary between characters is set.
    fn cut(text: &str, bits: u64) -> Vec<&str> {
        let boundaries = text.char_indices().map(|(start, _)| start).skip(1);
        let mut cuts: Vec<usize> = vec![0];
        cuts.extend(boundaries.enumerate().filter(|(i, _)| bits >> i & 1 == 1).map(|(_, start)| start));
        cuts.push(text.len());
        cuts.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect()
    }

    #[test]
    fn every_way_of_cutting_a_text_gives_the_same_answer() {
        let cases: [(&str, &[&str]); 9] = [
            ("hello STOP more", &["STOP"]),
            ("aaaaab", &["aaab", "b"]),
            ("abcabcabd", &["abcabd"]),
            ("he said ushers", &["hers", "she", "he "]),
            ("naïve été", &["été", "ï"]),
            ("日本語の文", &["語の", "本語"]),
            ("ends in a live pre", &["prefix"]),
            ("x\n\nHuman:", &["\n\nHuman:", "\n\n\n"]),
            ("no stop at all", &[]),
        ];
        for (text, stops) in cases {
            let stops = strings(stops);
            let expected = naive(text, &stops);
            for bits in 0..1_u64 << (text.chars().count() - 1) {
                assert_eq!(feed(&cut(text, bits), &stops), expected, "{:?}", cut(text, bits));
            }
        }
    }

    #[test]
    fn the_first_stop_complete_wins_and_of_several_the_leftmost() {
        let (out, matched) = feed(&["xabcd"], &strings(&["abcd", "bc"]));
        assert_eq!((out.as_str(), matched), ("xa", Some(1)));
        let (out, matched) = feed(&["xabc"], &strings(&["bc", "abc", "c"]));
        assert_eq!((out.as_str(), matched), ("x", Some(1)));
        assert_eq!(feed(&["ab"], &strings(&["b", "b"])), ("a".to_owned(), Some(0)));
    }

    #[test]
    fn nothing_comes_after_a_match() {
        let mut matcher = StopMatcher::new(&strings(&["."]));
        assert_eq!(matcher.push("a.b"), StopOutcome { released: "a".to_owned(), matched: Some(0) });
        assert_eq!(matcher.push("c"), StopOutcome { released: String::new(), matched: Some(0) });
        assert_eq!(matcher.finish(), "");
    }

    #[test]
    fn text_is_held_only_as_long_as_it_may_become_a_stop() {
        let mut matcher = StopMatcher::new(&strings(&["</end>"]));
        assert_eq!(matcher.push("a </en").released, "a ");
        assert_eq!(matcher.clone().finish(), "</en");
        assert_eq!(matcher.push("<").released, "</en");
        assert_eq!(matcher.push("/x").released, "</x");
    }

    fn words() -> impl Strategy<Value = String> {
        // Few letters of one to four bytes, so that prefixes overlap often.
        prop::collection::vec(prop::sample::select(vec!['a', 'b', 'é', 'è', '語', '𝄞']), 0..40)
            .prop_map(|letters| letters.into_iter().collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn agrees_with_a_search_through_the_whole_text(
            text in words(),
            stops in prop::collection::vec(prop::collection::vec(prop::sample::select(vec!['a', 'b', 'é', 'è', '語']), 1..6), 0..6),
            bits in any::<u64>(),
        ) {
            let stops: Vec<String> = stops.into_iter().map(|letters| letters.into_iter().collect()).collect();
            prop_assert_eq!(feed(&cut(&text, bits), &stops), naive(&text, &stops));
        }
    }
}
