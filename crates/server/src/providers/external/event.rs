//! Server-sent events, read: bytes as they come, events as they are complete.

/// Most bytes of one event. What is longer is no piece of an answer.
const LONGEST_EVENT: usize = 16 << 20;

/// One event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Event {
    /// Its name; empty where it has none.
    pub(super) name: String,
    /// Its lines.
    pub(super) data: String,
}

/// A stream that is no stream of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum EventError {
    /// An event has no end.
    #[error("an event of the stream is longer than {LONGEST_EVENT} bytes")]
    TooLong,
    /// It is no text.
    #[error("an event of the stream is not UTF-8")]
    NotText,
}

/// Cuts a stream into events.
#[derive(Debug, Default)]
pub(super) struct EventReader {
    /// The line that is not complete yet.
    line: Vec<u8>,
    /// The last line ended with a carriage return, so that a line feed that follows belongs to its end.
    after_return: bool,
    event: Event,
    has_data: bool,
}

impl EventReader {
    /// The events that `bytes` complete.
    pub(super) fn push(&mut self, mut bytes: &[u8]) -> Result<Vec<Event>, EventError> {
        let mut events = Vec::new();
        let Some(first) = bytes.first() else { return Ok(events) };
        if std::mem::take(&mut self.after_return) && *first == b'\n' {
            bytes = &bytes[1..];
        }
        while let Some(end) = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            self.line.extend_from_slice(&bytes[..end]);
            let line = std::mem::take(&mut self.line);
            events.extend(self.line(&line)?);
            let returned = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            match bytes.first() {
                Some(b'\n') if returned => bytes = &bytes[1..],
                None => self.after_return = returned,
                Some(_) => {}
            }
        }
        self.line.extend_from_slice(bytes);
        self.check()?;
        Ok(events)
    }

    fn line(&mut self, line: &[u8]) -> Result<Option<Event>, EventError> {
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            return Ok(std::mem::take(&mut self.has_data).then_some(event));
        }
        let line = std::str::from_utf8(line).map_err(|_| EventError::NotText)?;
        let line = line.strip_prefix('\u{feff}').unwrap_or(line);
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => {
                if self.has_data {
                    self.event.data.push('\n');
                }
                self.has_data = true;
                self.event.data.push_str(value);
            }
            "event" => self.event.name = value.to_owned(),
            // Comments keep the connection open; ids and times to try again are for those who ask again.
            _ => {}
        }
        self.check()?;
        Ok(None)
    }

    fn check(&self) -> Result<(), EventError> {
        let held = self.line.len() + self.event.data.len();
        if held > LONGEST_EVENT { Err(EventError::TooLong) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event(name: &str, data: &str) -> Event {
        Event { name: name.into(), data: data.into() }
    }

    #[test]
    fn names_lines_comments_and_ends_of_lines_are_understood() {
        let text =
            ": hello\nevent: a\ndata: 1\ndata:2\n\ndata\r\n\r\nid: 7\rretry: 5\r\revent: lost\n\ndata:  x\n\ndata: cut";
        let events = EventReader::default().push(text.as_bytes()).unwrap();
        assert_eq!(events, [event("a", "1\n2"), event("", ""), event("", " x")]);
    }

    #[test]
    fn what_is_no_stream_of_events_is_an_error() {
        assert_eq!(EventReader::default().push(b"data: \xff\n"), Err(EventError::NotText));
        let mut reader = EventReader::default();
        let piece = vec![b'x'; 1 << 20];
        let error = (0..17).find_map(|_| reader.push(&piece).err());
        assert_eq!(error, Some(EventError::TooLong));
        let mut reader = EventReader::default();
        let line = [b"data: ".as_slice(), &piece, b"\n"].concat();
        assert_eq!((0..17).find_map(|_| reader.push(&line).err()), Some(EventError::TooLong));
    }

    proptest! {
        #[test]
        fn events_are_the_same_however_the_stream_is_cut(
            events in prop::collection::vec(("[a-z]{0,3}", "[ -~é€\n]{0,12}"), 0..6),
            end in prop::sample::select(vec!["\n", "\r", "\r\n"]),
            cuts in prop::collection::vec(0usize..200, 0..20),
        ) {
            let mut text = String::new();
            for (name, data) in &events {
                text += &format!("event: {name}{end}");
                for line in data.split('\n') {
                    text += &format!("data: {line}{end}");
                }
                text += end;
            }
            let bytes = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let mut reader = EventReader::default();
            let mut read = Vec::new();
            for pair in cuts.windows(2) {
                read.extend(reader.push(&bytes[pair[0]..pair[1]]).unwrap());
            }
            let expected: Vec<Event> = events.iter().map(|(name, data)| event(name, data)).collect();
            prop_assert_eq!(read, expected);
        }
    }
}
