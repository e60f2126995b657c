//! Endpoints that the server itself asks, in no caller's name: its settings name them, and nothing else can.

/// The endpoints that the server itself may ask.
#[derive(Debug, Clone, PartialEq)]
pub struct Aides {
    /// The one whose model says whether something is safe.
    pub judge: Option<String>,
    /// The one whose model makes vectors of texts and topics.
    pub topics: Option<String>,
    /// The least cosine of the vectors of a text and of a topic that it is about.
    pub topic_threshold: f32,
}

impl Aides {
    /// The threshold where none is set.
    pub const TOPIC_THRESHOLD: f32 = 0.25;

    pub(super) fn name(&self, aide: Aide) -> Option<&str> {
        match aide {
            Aide::Judge => self.judge.as_deref(),
            Aide::Topics => self.topics.as_deref(),
        }
    }
}

impl Default for Aides {
    fn default() -> Self {
        Self { judge: None, topics: None, topic_threshold: Self::TOPIC_THRESHOLD }
    }
}

/// What such an endpoint is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Aide {
    /// Whether something is safe.
    Judge,
    /// Vectors.
    Topics,
}
