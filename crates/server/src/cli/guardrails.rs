//! The models that guardrails ask.

use clap::Args;
use hearth::gate::Aides;
use hearth::serve::ServeSettings;

/// Arguments of `hearth serve` for guardrails.
#[derive(Args, Clone)]
pub(super) struct GuardrailArguments {
    /// Endpoint whose model says for guardrails whether something is safe, as Llama Guard does [default: none]
    #[arg(long, value_name = "ENDPOINT")]
    judge_endpoint: Option<String>,
    /// Endpoint whose embedding model tells for guardrails what a text is about [default: none]
    #[arg(long, value_name = "ENDPOINT")]
    topic_endpoint: Option<String>,
    /// Least cosine of the vectors of a text and of a topic that it is about, from 0 to 1
    #[arg(long, value_name = "COSINE", default_value_t = Aides::TOPIC_THRESHOLD, value_parser = threshold)]
    topic_threshold: f32,
}

impl GuardrailArguments {
    /// The server's settings with these models.
    pub(super) fn settings(&self, settings: ServeSettings) -> ServeSettings {
        let Self { judge_endpoint: judge, topic_endpoint: topics, topic_threshold } = self.clone();
        ServeSettings { aides: Aides { judge, topics, topic_threshold }, ..settings }
    }
}

fn threshold(text: &str) -> Result<f32, String> {
    let within = text.parse().ok().filter(|cosine| (0.0..=1.0).contains(cosine));
    within.ok_or_else(|| "it must be a number from 0 to 1".to_owned())
}
