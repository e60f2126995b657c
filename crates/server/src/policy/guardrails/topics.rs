//! Whether a text is about one of the topics that it may be about: how near its vector is to those of the topics.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::aides::Aides;
use crate::providers::{Cut, EmbeddingCall, Prompt, ProviderError};

/// Topics, with their vectors once they were needed.
#[derive(Debug)]
pub(super) struct Topics {
    topics: Vec<String>,
    /// By the entity whose model has made them: another one's would mean something else.
    vectors: Mutex<Option<MadeBy>>,
}

/// Vectors, and the id of what has made them.
type MadeBy = (String, Arc<Vec<Vec<f32>>>);

impl Topics {
    pub(super) fn new(topics: Vec<String>) -> Self {
        Self { topics, vectors: Mutex::default() }
    }

    fn known(&self) -> Option<MadeBy> {
        // What is in it is replaced as a whole.
        self.vectors.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How near the farthest of `texts` is to the topic that it is nearest to: a cosine.
    ///
    /// # Errors
    /// Where the vectors do not come.
    pub(super) async fn nearness(
        &self,
        aides: &Aides,
        texts: &[&str],
        deadline: Option<Instant>,
    ) -> Result<f32, ProviderError> {
        let known = self.known();
        if let Some((entity, topics)) = known {
            let (made_by, vectors) = aides.vectors(call(texts, &[], deadline)).await?;
            if made_by == entity {
                return Ok(nearness(&topics, &vectors));
            }
        }
        let topics: Vec<&str> = self.topics.iter().map(String::as_str).collect();
        let (made_by, mut vectors) = aides.vectors(call(&topics, texts, deadline)).await?;
        let rest = vectors.split_off(topics.len().min(vectors.len()));
        let topics = Arc::new(vectors);
        *self.vectors.lock().unwrap_or_else(PoisonError::into_inner) = Some((made_by, Arc::clone(&topics)));
        Ok(nearness(&topics, &rest))
    }
}

fn call(texts: &[&str], more: &[&str], deadline: Option<Instant>) -> EmbeddingCall {
    let inputs = texts.iter().chain(more).map(|text| Prompt::Text((*text).to_owned())).collect();
    EmbeddingCall { inputs, instruction: None, dimensions: None, deadline, cut: Some(Cut::Context), input_type: None }
}

fn nearness(topics: &[Vec<f32>], texts: &[Vec<f32>]) -> f32 {
    let nearest = |text: &Vec<f32>| topics.iter().map(|topic| cosine(topic, text)).fold(-1.0, f32::max);
    texts.iter().map(nearest).fold(1.0, f32::min)
}

fn cosine(one: &[f32], other: &[f32]) -> f32 {
    let product = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    let lengths = (product(one, one) * product(other, other)).sqrt();
    if one.len() == other.len() && lengths > 0.0 { product(one, other) / lengths } else { -1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_farthest_text_counts_and_the_topic_that_is_nearest_to_it() {
        let topics = [vec![1.0, 0.0], vec![0.0, 2.0]];
        assert!((nearness(&topics, &[vec![3.0, 0.0], vec![0.0, 1.0]]) - 1.0).abs() < 1e-6);
        assert!((nearness(&topics, &[vec![3.0, 0.0], vec![1.0, 1.0]]) - 0.5_f32.sqrt()).abs() < 1e-6);
        assert_eq!(nearness(&topics, &[vec![0.0, 0.0]]), -1.0);
        assert_eq!(nearness(&topics, &[vec![1.0]]), -1.0);
    }
}
