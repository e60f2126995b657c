//! The part of Python's pickle format that PyTorch describes tensors with, read as data: nothing is looked up, called or
//! run. Must not know what a tensor is.
//!
//! An opcode adds at most one value, and values name each other by number: whatever a file says, reading it takes memory
//! in proportion to its length, and no recursion.
//! Format: <https://github.com/python/cpython/blob/main/Lib/pickletools.py>.

use std::collections::HashMap;

/// The number of a value.
pub(super) type Id = usize;

/// A value, as far as it can be part of a tensor's description.
#[derive(Debug, Clone)]
pub(super) enum Value<'a> {
    /// None, a boolean, a float, a list: no part of a description.
    Other,
    Int(i64),
    Text(&'a str),
    /// A class or a function by its name.
    Global {
        module: &'a str,
        name: &'a str,
    },
    Tuple(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// What would have been called.
    Call {
        callable: Id,
        arguments: Id,
    },
    /// Something that is kept outside the pickle.
    Persistent(Id),
}

/// Everything that a pickle has built.
#[derive(Debug)]
pub(super) struct Pickle<'a> {
    values: Vec<Value<'a>>,
    root: Id,
}

impl<'a> Pickle<'a> {
    /// Reads a pickle to its end.
    ///
    /// # Errors
    /// Where it goes wrong, in bytes from its beginning, and how.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, (usize, String)> {
        let mut machine = Machine { bytes, ..Machine::default() };
        loop {
            let at = bytes.len() - machine.bytes.len();
            match machine.step() {
                Ok(None) => {}
                Ok(Some(root)) => return Ok(Self { values: machine.values, root }),
                Err(why) => return Err((at, why)),
            }
        }
    }

    /// What it describes.
    pub(super) fn root(&self) -> &Value<'a> {
        self.get(self.root)
    }

    /// A value by its number, which another value has named.
    pub(super) fn get(&self, id: Id) -> &Value<'a> {
        &self.values[id]
    }
}

/// Python's unpickling machine, without its powers.
#[derive(Default)]
struct Machine<'a> {
    /// What is left to read.
    bytes: &'a [u8],
    values: Vec<Value<'a>>,
    stack: Vec<Id>,
    /// Lengths of the stack.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

impl<'a> Machine<'a> {
    /// Does what one opcode says. Gives the result at the end.
    fn step(&mut self) -> Result<Option<Id>, String> {
        let [opcode] = self.take::<1>()?;
        match opcode {
            b'.' => return self.pop().map(Some),
            b'(' => self.marks.push(self.stack.len()),
            // The protocol's version: opcodes that are not known are refused in any.
            0x80 => drop(self.take::<1>()?),
            b'q' => self.remember_at::<1>()?,
            b'r' => self.remember_at::<4>()?,
            b'h' => self.recall::<1>()?,
            b'j' => self.recall::<4>()?,
            b'N' | b'G' | b'X' | b'J' | b'K' | b'M' | b'c' | 0x88 | 0x89 | 0x8a => {
                let value = self.literal(opcode)?;
                self.push(value);
            }
            b')' | b't' | 0x85..=0x87 | b'}' | b']' | b'Q' | b'R' | 0x81 => {
                let value = self.composed(opcode)?;
                self.push(value);
            }
            b's' | b'u' | b'a' | b'e' | b'b' => self.fill(opcode)?,
            _ => return Err(format!("opcode {opcode:#04x} is not one that tensors are described with")),
        }
        Ok(None)
    }

    fn literal(&mut self, opcode: u8) -> Result<Value<'a>, String> {
        Ok(match opcode {
            b'G' => {
                self.take::<8>()?;
                Value::Other
            }
            b'J' => Value::Int(i32::from_le_bytes(self.take()?).into()),
            b'K' => Value::Int(u8::from_le_bytes(self.take()?).into()),
            b'M' => Value::Int(u16::from_le_bytes(self.take()?).into()),
            0x8a => self.long()?,
            b'X' => {
                let length = u32::from_le_bytes(self.take()?) as usize;
                Value::Text(self.text(length)?)
            }
            b'c' => {
                let module = self.line()?;
                Value::Global { module, name: self.line()? }
            }
            // None, true and false.
            _ => Value::Other,
        })
    }

    fn composed(&mut self, opcode: u8) -> Result<Value<'a>, String> {
        Ok(match opcode {
            b')' => Value::Tuple(Vec::new()),
            b't' => Value::Tuple(self.pop_to_mark()?),
            0x85..=0x87 => Value::Tuple(self.pop_many(usize::from(opcode - 0x84))?),
            b'}' => Value::Dict(Vec::new()),
            b'Q' => Value::Persistent(self.pop()?),
            b'R' | 0x81 => {
                let (arguments, callable) = (self.pop()?, self.pop()?);
                match &self.values[callable] {
                    Value::Global { module: "collections", name: "OrderedDict" } => Value::Dict(Vec::new()),
                    _ => Value::Call { callable, arguments },
                }
            }
            // A list.
            _ => Value::Other,
        })
    }

    /// Puts what is on the stack into what lies under it.
    fn fill(&mut self, opcode: u8) -> Result<(), String> {
        let items = match opcode {
            b's' => self.pop_many(2)?,
            b'u' => self.pop_to_mark()?,
            // The items of a list, or the state of an object: no part of a description.
            b'e' => return self.pop_to_mark().map(drop),
            _ => return self.pop().map(drop),
        };
        let target = *self.stack.last().ok_or("items are given to nothing")?;
        let Value::Dict(entries) = &mut self.values[target] else {
            return Err("items are given to something that is no dictionary".to_owned());
        };
        if !items.len().is_multiple_of(2) {
            return Err(format!("{} items are given to a dictionary, which takes pairs", items.len()));
        }
        entries.extend(items.chunks_exact(2).map(|pair| (pair[0], pair[1])));
        Ok(())
    }

    fn push(&mut self, value: Value<'a>) {
        self.stack.push(self.values.len());
        self.values.push(value);
    }

    /// The top of the stack, above the last mark.
    fn pop(&mut self) -> Result<Id, String> {
        let floor = self.marks.last().copied().unwrap_or(0);
        let top = if self.stack.len() > floor { self.stack.pop() } else { None };
        top.ok_or_else(|| "the stack is empty".to_owned())
    }

    fn pop_many(&mut self, count: usize) -> Result<Vec<Id>, String> {
        let mut items = (0..count).map(|_| self.pop()).collect::<Result<Vec<_>, _>>()?;
        items.reverse();
        Ok(items)
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Id>, String> {
        let mark = self.marks.pop().ok_or("there is no mark on the stack")?;
        // Nothing is popped from under a mark, so the stack is at least as long.
        Ok(self.stack.split_off(mark))
    }

    fn remember_at<const N: usize>(&mut self) -> Result<(), String> {
        let place = self.place::<N>()?;
        let top = *self.stack.last().ok_or("nothing is there to be remembered")?;
        self.memo.insert(place, top);
        Ok(())
    }

    fn recall<const N: usize>(&mut self) -> Result<(), String> {
        let place = self.place::<N>()?;
        let known = self.memo.get(&place).ok_or_else(|| format!("nothing is remembered as number {place}"))?;
        self.stack.push(*known);
        Ok(())
    }

    fn place<const N: usize>(&mut self) -> Result<u32, String> {
        let mut place = [0; 4];
        place[..N].copy_from_slice(&self.take::<N>()?);
        Ok(u32::from_le_bytes(place))
    }

    /// A whole number of up to 8 bytes, in two's complement.
    fn long(&mut self) -> Result<Value<'a>, String> {
        let [length] = self.take::<1>()?;
        let bytes = self.part(usize::from(length))?;
        if bytes.len() > 8 {
            return Err(format!("a whole number has {} bytes; 8 are supported", bytes.len()));
        }
        let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
        let mut whole = if negative { [0xff; 8] } else { [0; 8] };
        whole[..bytes.len()].copy_from_slice(bytes);
        Ok(Value::Int(i64::from_le_bytes(whole)))
    }

    fn line(&mut self) -> Result<&'a str, String> {
        let length = self.bytes.iter().position(|byte| *byte == b'\n').ok_or("a line does not end")?;
        let line = self.text(length)?;
        self.take::<1>()?;
        Ok(line)
    }

    fn text(&mut self, length: usize) -> Result<&'a str, String> {
        std::str::from_utf8(self.part(length)?).map_err(|error| format!("a text is not UTF-8: {error}"))
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut taken = [0; N];
        taken.copy_from_slice(self.part(N)?);
        Ok(taken)
    }

    fn part(&mut self, length: usize) -> Result<&'a [u8], String> {
        let left = self.bytes.len();
        let (part, rest) = self
            .bytes
            .split_at_checked(length)
            .ok_or_else(|| format!("{length} bytes are needed, and {left} are left"))?;
        self.bytes = rest;
        Ok(part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(bytes: &[u8]) -> String {
        Pickle::read(bytes).unwrap_err().1
    }

    #[test]
    fn what_a_pickle_builds_is_read() {
        // {'a': (1, -2, 300), 'b': 70000}, with the first tuple remembered.
        let bytes = b"\x80\x02}q\x00(X\x01\x00\x00\x00aK\x01J\xfe\xff\xff\xffM\x2c\x01\x87q\x01X\x01\x00\x00\x00b\x8a\x03\x70\x11\x01u.";
        let pickle = Pickle::read(bytes).unwrap();
        let Value::Dict(entries) = pickle.root() else { panic!("{pickle:?}") };
        let [(a, first), (_, second)] = entries[..] else { panic!("{pickle:?}") };
        assert!(matches!(pickle.get(a), Value::Text("a")) && matches!(pickle.get(second), Value::Int(70_000)));
        let Value::Tuple(items) = pickle.get(first) else { panic!("{pickle:?}") };
        let numbers: Vec<i64> = items
            .iter()
            .map(|id| match pickle.get(*id) {
                Value::Int(number) => *number,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(numbers, [1, -2, 300]);
    }

    #[test]
    fn calls_are_kept_and_not_made() {
        let pickle = Pickle::read(b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R.").unwrap();
        let Value::Call { callable, .. } = pickle.root() else { panic!("{pickle:?}") };
        assert!(matches!(pickle.get(*callable), Value::Global { module: "os", name: "system" }));
    }

    #[test]
    fn each_thing_wrong_has_its_reason() {
        assert!(refusal(b"").contains("1 bytes are needed, and 0 are left"));
        assert!(refusal(b".").contains("stack is empty"));
        assert!(refusal(b"(.").contains("stack is empty"));
        assert!(refusal(b"t").contains("no mark"));
        assert!(refusal(b"h\x05").contains("number 5"));
        assert!(refusal(b"cos").contains("does not end"));
        assert!(refusal(b"X\x05\x00\x00\x00ab").contains("5 bytes are needed, and 2 are left"));
        assert!(refusal(b"X\x01\x00\x00\x00\xff").contains("not UTF-8"));
        assert!(refusal(b"}(Nu").contains("takes pairs"));
        assert!(refusal(b"N(NNu").contains("no dictionary"));
        assert!(refusal(b"\x8a\x09123456789").contains("9 bytes"));
        assert!(refusal(b"i").contains("opcode 0x69"));
    }

    #[test]
    fn a_pickle_that_doubles_itself_stays_small() {
        // Twenty times a tuple of the one before, twice.
        let mut bytes = b"\x80\x02)".to_vec();
        for place in 0..20 {
            bytes.extend([b'q', place, b'h', place, 0x86]);
        }
        bytes.push(b'.');
        assert_eq!(Pickle::read(&bytes).unwrap().values.len(), 21);
    }
}
