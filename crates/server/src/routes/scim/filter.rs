//! Filters (RFC 7644, section 3.4.2.2): `userName eq "a" and not (active eq false)`.
//!
//! Owns the grammar. Knows no principal: what a path means is said by who reads a filter, and what stands there by who asks.

use std::borrow::Cow;

use crate::wire::FieldError;

/// How deep conditions may stand in each other.
const DEPTH: usize = 32;

/// A condition over attributes `P`.
#[derive(Debug, PartialEq)]
pub(super) enum Filter<P> {
    /// Some value of the attribute passes.
    Holds(P, Test),
    Not(Box<Self>),
    All(Vec<Self>),
    Any(Vec<Self>),
}

/// What a value is asked for. Texts are compared without case; they are kept in small letters.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Test {
    Present,
    Equals(String),
    Contains(String),
    Begins(String),
    Ends(String),
}

impl Test {
    fn passes(&self, value: &str) -> bool {
        let value = value.to_lowercase();
        match self {
            Self::Present => !value.is_empty(),
            Self::Equals(text) => value == *text,
            Self::Contains(text) => value.contains(text),
            Self::Begins(text) => value.starts_with(text),
            Self::Ends(text) => value.ends_with(text),
        }
    }
}

impl<P> Filter<P> {
    /// Reads a filter; `path` says what a name means.
    ///
    /// # Errors
    /// What is no filter, and what names no attribute; blamed on `field`.
    pub(super) fn read(field: &str, text: &str, path: &dyn Fn(&str) -> Option<P>) -> Result<Self, FieldError> {
        let mut reader = Reader { field, rest: text.trim(), path, depth: 0 };
        let filter = reader.any()?;
        match reader.rest {
            "" => Ok(filter),
            rest => Err(reader.refuse(format!("`{rest}` stands after the end of the condition"))),
        }
    }

    /// Whether the condition holds, where an attribute has those values.
    pub(super) fn holds<'a>(&self, values: &dyn Fn(&P) -> Vec<Cow<'a, str>>) -> bool {
        match self {
            Self::Holds(path, test) => values(path).iter().any(|value| test.passes(value)),
            Self::Not(inner) => !inner.holds(values),
            Self::All(inner) => inner.iter().all(|one| one.holds(values)),
            Self::Any(inner) => inner.iter().any(|one| one.holds(values)),
        }
    }
}

/// The value that a test compares with.
enum Wanted {
    Text(String),
    Null,
}

struct Reader<'a, P> {
    field: &'a str,
    rest: &'a str,
    path: &'a dyn Fn(&str) -> Option<P>,
    depth: usize,
}

impl<'a, P> Reader<'a, P> {
    fn refuse(&self, problem: impl Into<String>) -> FieldError {
        FieldError::conflict(self.field, problem)
    }

    fn any(&mut self) -> Result<Filter<P>, FieldError> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(self.refuse(format!("conditions stand in each other more than {DEPTH} deep")));
        }
        let mut parts = vec![self.all()?];
        while self.takes_word("or") {
            parts.push(self.all()?);
        }
        self.depth -= 1;
        Ok(if parts.len() == 1 { parts.remove(0) } else { Filter::Any(parts) })
    }

    fn all(&mut self) -> Result<Filter<P>, FieldError> {
        let mut parts = vec![self.one()?];
        while self.takes_word("and") {
            parts.push(self.one()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Filter::All(parts) })
    }

    fn one(&mut self) -> Result<Filter<P>, FieldError> {
        let negated = self.takes_word("not");
        if let Some(rest) = self.rest.strip_prefix('(') {
            self.rest = rest.trim_start();
            let inner = self.any()?;
            let Some(rest) = self.rest.strip_prefix(')') else { return Err(self.refuse("a `)` is missing")) };
            self.rest = rest.trim_start();
            return Ok(if negated { Filter::Not(Box::new(inner)) } else { inner });
        }
        if negated {
            return Err(self.refuse("after `not` comes a condition in parentheses"));
        }
        self.comparison()
    }

    fn comparison(&mut self) -> Result<Filter<P>, FieldError> {
        let name = self.word();
        if name.is_empty() {
            return Err(self.refuse("a condition is `ATTRIBUTE eq|ne|co|sw|ew VALUE` or `ATTRIBUTE pr`"));
        }
        let path = (self.path)(name).ok_or_else(|| self.refuse(format!("there is no attribute `{name}`")))?;
        let operator = self.word().to_ascii_lowercase();
        let refused = |reader: &Self| {
            reader.refuse(format!("the operator must be `eq`, `ne`, `co`, `sw`, `ew` or `pr`, not `{operator}`"))
        };
        if operator == "pr" {
            return Ok(Filter::Holds(path, Test::Present));
        }
        let test = match operator.as_str() {
            "eq" | "ne" => Test::Equals,
            "co" => Test::Contains,
            "sw" => Test::Begins,
            "ew" => Test::Ends,
            _ => return Err(refused(self)),
        };
        let (filter, negated) = match (self.value()?, operator.as_str()) {
            (Wanted::Text(text), operator) => (Filter::Holds(path, test(text.to_lowercase())), operator == "ne"),
            // What equals nothing is not there.
            (Wanted::Null, "eq" | "ne") => (Filter::Holds(path, Test::Present), operator == "eq"),
            (Wanted::Null, _) => return Err(self.refuse(format!("`{operator}` takes a text, not null"))),
        };
        Ok(if negated { Filter::Not(Box::new(filter)) } else { filter })
    }

    /// A text in quotes, or a bare word, as some clients and the vendor's own pages write it.
    fn value(&mut self) -> Result<Wanted, FieldError> {
        if self.rest.starts_with('"') {
            let mut texts = serde_json::Deserializer::from_str(self.rest).into_iter::<String>();
            let Some(Ok(text)) = texts.next() else { return Err(self.refuse("a text in quotes does not end")) };
            self.rest = self.rest[texts.byte_offset()..].trim_start();
            return Ok(Wanted::Text(text));
        }
        match self.word() {
            "" => Err(self.refuse("the value to compare with is missing")),
            "null" => Ok(Wanted::Null),
            word => Ok(Wanted::Text(word.to_owned())),
        }
    }

    /// The next word, up to a blank or a parenthesis.
    fn word(&mut self) -> &'a str {
        let end = self.rest.find(|c: char| c.is_whitespace() || matches!(c, '(' | ')'));
        let (word, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest.trim_start();
        word
    }

    /// Takes that word, if it is the next one.
    fn takes_word(&mut self, wanted: &str) -> bool {
        let before = self.rest;
        if self.word().eq_ignore_ascii_case(wanted) {
            return true;
        }
        self.rest = before;
        false
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Filter<String>, FieldError> {
        Filter::read("filter", text, &|name| (name != "shoeSize").then(|| name.to_lowercase()))
    }

    /// Whether Ada passes.
    fn holds(text: &str) -> bool {
        let values = |path: &String| -> Vec<Cow<'static, str>> {
            match path.as_str() {
                "username" => vec!["Ada@Example.com".into()],
                "active" => vec!["true".into()],
                "emails" => vec!["ada@example.com".into(), "countess@example.org".into()],
                _ => Vec::new(),
            }
        };
        read(text).unwrap().holds(&values)
    }

    #[test]
    fn conditions_are_read_as_the_standard_says() {
        for yes in [
            r#"userName eq "ada@example.com""#,
            "userName eq ada@example.com",
            r#"USERNAME SW "ada" "#,
            r#"userName co "EXAMPLE" and active eq true"#,
            r#"userName ew ".org" or emails ew ".org""#,
            r#"not (userName eq "bob")"#,
            r#"userName ne "bob" and (active eq false or emails pr)"#,
            "externalId eq null",
            "emails ne null",
            r#"active eq false and active eq false or active eq true"#,
        ] {
            assert!(holds(yes), "{yes}");
        }
        for no in [
            r#"userName eq "ada""#,
            "externalId pr",
            r#"emails ne "countess@example.org""#,
            r#"userName co "example" and active eq false"#,
            r#"active eq true and (active eq false or userName eq "x")"#,
        ] {
            assert!(!holds(no), "{no}");
        }
    }

    #[test]
    fn what_is_no_condition_is_refused_by_name() {
        let long = format!("{}a eq b{}", "(".repeat(40), ")".repeat(40));
        for (text, problem) in [
            (r#"shoeSize eq "4""#, "there is no attribute `shoeSize`"),
            ("userName gt 4", "not `gt`"),
            ("userName", "not ``"),
            ("userName eq", "the value to compare with is missing"),
            (r#"userName eq "ada"#, "does not end"),
            (r#"(userName eq "ada""#, "a `)` is missing"),
            (r#"userName eq "a" active eq true"#, "stands after the end"),
            ("not userName pr", "after `not` comes"),
            ("", "a condition is"),
            (&long, "32 deep"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.starts_with("`filter`: ") && error.contains(problem), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_brings_the_reader_down(text in "[a-z\"\\\\() ]{0,60}") {
            let _ = read(&text);
        }

        #[test]
        fn whatever_stands_in_quotes_is_compared_as_it_is(text in any::<String>()) {
            let quoted = serde_json::to_string(&text).unwrap();
            let filter = read(&format!("userName eq {quoted}")).unwrap();
            prop_assert!(filter.holds(&|_| vec![Cow::Owned(text.clone())]));
        }
    }
}
