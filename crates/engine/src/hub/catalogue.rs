//! The cards that ship inside the binary, found by name. Must not know whether a model is on disk.

use include_dir::{Dir, include_dir};

use super::card::Card;
use super::error::HubError;

static CARDS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../../models");

/// Similarity from which a name is worth suggesting (Jaro-Winkler, 0 to 1): catches a slip, not a guess.
const NEAR: f64 = 0.8;
/// More suggestions than this help nobody.
const MOST_NEAR: usize = 3;

/// Models known by name.
#[derive(Debug, Clone)]
pub struct Catalogue {
    /// Sorted by name.
    cards: Vec<Card>,
}

impl Catalogue {
    /// The catalogue embedded at build time, from the folder `models/`.
    pub fn embedded() -> Result<Self, HubError> {
        let files = CARDS.files().filter(|file| file.path().extension().is_some_and(|extension| extension == "toml"));
        let mut cards = Vec::new();
        for file in files {
            let name = file.path().display().to_string();
            let text = file
                .contents_utf8()
                .ok_or_else(|| HubError::Card { file: name.clone(), reason: "is not UTF-8".to_owned() })?;
            cards.push(Card::parse(&name, text)?);
        }
        Self::new(cards)
    }

    /// A catalogue of these cards. A name or alias that stands on two of them is an error.
    pub fn new(mut cards: Vec<Card>) -> Result<Self, HubError> {
        cards.sort_by(|one, other| one.name.cmp(&other.name));
        let mut seen: Vec<(&str, &Card)> = Vec::new();
        for card in &cards {
            for name in names(card) {
                if let Some((_, first)) = seen.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)) {
                    return Err(HubError::DuplicateName {
                        name: name.to_owned(),
                        first: first.name.clone(),
                        second: card.name.clone(),
                    });
                }
                seen.push((name, card));
            }
        }
        Ok(Self { cards })
    }

    /// All cards, sorted by name.
    pub fn cards(&self) -> &[Card] {
        &self.cards
    }

    /// The card with this name or alias, without regard to case.
    pub fn find(&self, name: &str) -> Option<&Card> {
        self.cards.iter().find(|card| names(card).any(|known| known.eq_ignore_ascii_case(name)))
    }

    /// Names of cards that `name` may have meant, best first.
    pub fn near(&self, name: &str) -> Vec<String> {
        let wanted = name.to_ascii_lowercase();
        let likeness = |card: &Card| names(card).map(|known| strsim::jaro_winkler(known, &wanted)).fold(0.0, f64::max);
        let mut near: Vec<(f64, &Card)> =
            self.cards.iter().map(|card| (likeness(card), card)).filter(|(value, _)| *value >= NEAR).collect();
        near.sort_by(|(one, _), (other, _)| other.total_cmp(one));
        near.into_iter().take(MOST_NEAR).map(|(_, card)| card.name.clone()).collect()
    }
}

fn names(card: &Card) -> impl Iterator<Item = &str> {
    std::iter::once(card.name.as_str()).chain(card.aliases.iter().map(String::as_str))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_embedded_card_parses_and_is_named_as_its_file() {
        let catalogue = Catalogue::embedded().unwrap();
        let mut files: Vec<String> =
            CARDS.files().map(|file| file.path().file_stem().unwrap().to_str().unwrap().to_owned()).collect();
        files.sort();
        let cards: Vec<String> = catalogue.cards().iter().map(|card| card.name.clone()).collect();
        assert_eq!(cards, files);
        assert!(cards.contains(&"smollm2-135m-instruct".to_owned()));
    }

    #[test]
    fn a_card_is_found_by_name_and_by_alias_whatever_the_case() {
        let catalogue = Catalogue::embedded().unwrap();
        for name in ["smollm2-135m-instruct", "smollm2", "SmolLM2"] {
            assert_eq!(catalogue.find(name).unwrap().name, "smollm2-135m-instruct", "{name}");
        }
        assert!(catalogue.find("smollm3").is_none());
    }

    #[test]
    fn a_name_on_two_cards_is_refused() {
        let mut cards = Catalogue::embedded().unwrap().cards().to_vec();
        let taken = cards[0].name.to_uppercase();
        cards[1].aliases.push(taken);
        let text = Catalogue::new(cards).unwrap_err().to_string();
        assert!(text.contains("both"), "{text}");
    }

    #[test]
    fn a_slip_finds_the_card_meant() {
        let near = Catalogue::embedded().unwrap().near("smolm2-135m-instruct");
        assert_eq!(near.first().map(String::as_str), Some("smollm2-135m-instruct"));
        assert!(Catalogue::embedded().unwrap().near("qqq").is_empty());
    }
}
