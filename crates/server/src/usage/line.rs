//! One entry as a line of a journal: a checksum, the entry as JSON, and the end of the line, so that what was not written
//! to its end is known as such.

use super::Entry;

/// Bytes of the checksum and the blank behind it.
const CHECKSUM: usize = 9;

/// The line of an entry.
pub(super) fn written(entry: &Entry) -> serde_json::Result<Vec<u8>> {
    let mut line = Vec::with_capacity(768);
    line.resize(CHECKSUM, 0);
    // JSON has no line breaks.
    serde_json::to_writer(&mut line, entry)?;
    let sum = checksum(&line[CHECKSUM..]);
    line[..CHECKSUM].copy_from_slice(sum.as_bytes());
    line.push(b'\n');
    Ok(line)
}

/// The entry of a line without its end; `None` where it is no whole line.
pub(super) fn read(line: &[u8]) -> Option<Entry> {
    let (sum, json) = line.split_at_checked(CHECKSUM)?;
    if sum != checksum(json).as_bytes() {
        return None;
    }
    serde_json::from_slice(json).ok()
}

fn checksum(json: &[u8]) -> String {
    format!("{:08x} ", crc32fast::hash(json))
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Any entry that requests can make.
    pub(crate) fn entries() -> impl Strategy<Value = Entry> {
        let texts = ("\\PC{0,20}", "[a-z]{0,8}", proptest::option::of(".{0,8}"), "\\PC{0,12}");
        let numbers = (any::<i64>(), any::<u16>(), any::<i64>(), proptest::option::of(any::<i64>()), any::<bool>());
        let context = proptest::collection::btree_map(".{0,8}", ".{0,20}", 0..3);
        (texts, numbers, context).prop_map(|(texts, numbers, usage_context)| Entry {
            request_id: texts.0,
            databricks_request_id: texts.1,
            client_request_id: texts.2,
            requester: texts.3,
            request_time: numbers.0,
            status_code: numbers.1,
            output_token_count: numbers.2,
            input_character_count: numbers.3,
            request_streaming: numbers.4,
            usage_context,
            ..Entry::default()
        })
    }

    proptest! {
        #[test]
        fn a_line_is_read_as_it_was_written_and_not_at_all_when_a_byte_is_missing_or_another_one(
            entry in entries(), cut in any::<prop::sample::Index>(), flip in 1u8..=255,
        ) {
            let line = written(&entry).unwrap();
            let (end, line) = line.split_last().unwrap();
            prop_assert_eq!(*end, b'\n');
            prop_assert!(!line.contains(&b'\n'));
            prop_assert_eq!(read(line), Some(entry));
            let cut = cut.index(line.len());
            prop_assert_eq!(read(&line[..cut]), None);
            let mut other = line.to_vec();
            other[cut] ^= flip;
            prop_assert_eq!(read(&other), None);
        }
    }
}
