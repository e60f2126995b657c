//! States, memory and waiting, with models that are nothing but numbers.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};

use super::*;
use crate::endpoints::Task;
use crate::providers::{Answer, AnswerEvent, ChatCall, CompletionCall, EmbeddingCall, Embeddings, RerankCall, Scores};
use crate::wire::options::{FinishReason, Usage};

/// A model of so many bytes.
struct Fake {
    bytes: u64,
    loads: Arc<AtomicUsize>,
    broken: Arc<AtomicBool>,
}

struct Loaded;

impl Source for Fake {
    fn model_name(&self) -> &str {
        "fake"
    }

    fn footprint(&self, _offered: u64) -> Result<Footprint, String> {
        Ok(Footprint { weights: self.bytes, ..Footprint::default() })
    }

    fn load(&self, _granted: Footprint) -> Result<Arc<dyn Provider>, String> {
        std::thread::sleep(Duration::from_millis(20));
        if self.broken.load(Ordering::SeqCst) {
            return Err("secret/path is broken".into());
        }
        self.loads.fetch_add(1, Ordering::SeqCst);
        Ok(Arc::new(Loaded))
    }
}

fn refuse<T: Send + 'static>() -> BoxFuture<'static, Result<T, ProviderError>> {
    async { Err(ProviderError::WrongTask("no".into())) }.boxed()
}

impl Provider for Loaded {
    fn task(&self) -> Option<Task> {
        Some(Task::Completions)
    }

    fn model_name(&self) -> &str {
        "fake"
    }

    fn chat(&self, _call: ChatCall) -> BoxFuture<'_, Result<Answer, ProviderError>> {
        refuse()
    }

    /// An answer that never ends.
    fn complete(&self, _call: CompletionCall) -> BoxFuture<'_, Result<Answer, ProviderError>> {
        async { Ok(Answer { choices: 1, events: stream::pending().boxed() }) }.boxed()
    }

    fn embed(&self, _call: EmbeddingCall) -> BoxFuture<'_, Result<Embeddings, ProviderError>> {
        async { Ok(Embeddings { vectors: Vec::new(), prompt_tokens: 0 }) }.boxed()
    }

    fn rerank(&self, _call: RerankCall) -> BoxFuture<'_, Result<Scores, ProviderError>> {
        refuse()
    }
}

fn fake(bytes: u64) -> (Arc<Fake>, Arc<AtomicUsize>, Arc<AtomicBool>) {
    let (loads, broken) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
    (Arc::new(Fake { bytes, loads: Arc::clone(&loads), broken: Arc::clone(&broken) }), loads, broken)
}

fn host(models: &Models, name: &str, bytes: u64) -> HostedModel {
    models.host(name, fake(bytes).0, Residence::OnDemand)
}

fn state(model: &HostedModel) -> ModelState {
    model.status().state
}

#[tokio::test]
async fn many_first_requests_cause_one_load() {
    let models = Models::new(100, false, None);
    let (source, loads, _) = fake(10);
    let model = models.host("one", source, Residence::OnDemand);
    assert_eq!((state(&model), model.task()), (ModelState::Unloaded, None));
    let all = futures::future::join_all((0..20).map(|_| model.load()));
    // One that gives up does not take the load away from the others.
    let gave_up = tokio::time::timeout(Duration::from_millis(1), model.load());
    let (gave_up, all) = tokio::join!(gave_up, all);
    assert!(gave_up.is_err() && all.iter().all(Result::is_ok));
    assert_eq!((loads.load(Ordering::SeqCst), state(&model)), (1, ModelState::Ready));
    assert_eq!((models.memory(), model.task()), ((10, 100), Some(Task::Completions)));
    model.unload(false).await.unwrap();
    assert_eq!((models.memory().0, state(&model)), (0, ModelState::Unloaded));
    model.load().await.unwrap();
    assert_eq!(loads.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_failed_load_is_told_without_its_details_and_tried_again() {
    let models = Models::new(100, false, None);
    let (source, _, broken) = fake(10);
    broken.store(true, Ordering::SeqCst);
    let model = models.host("one", source, Residence::OnDemand);
    let told = model.load().await.unwrap_err().to_string();
    assert!(told.contains("`one`") && !told.contains("secret"), "{told}");
    assert_eq!((state(&model), models.memory().0), (ModelState::Failed("secret/path is broken".into()), 0));
    broken.store(false, Ordering::SeqCst);
    model.load().await.unwrap();
}

#[tokio::test]
async fn idle_models_make_room_the_least_lately_used_first() {
    let models = Models::new(100, false, None);
    let (first, second, third) = (host(&models, "a", 40), host(&models, "b", 40), host(&models, "c", 40));
    for model in [&first, &second, &first, &third] {
        model.load().await.unwrap();
    }
    assert_eq!(
        (state(&first), state(&second), state(&third)),
        (ModelState::Ready, ModelState::Unloaded, ModelState::Ready)
    );
    assert_eq!(models.memory(), (80, 100));
    let told = host(&models, "d", 101).load().await.unwrap_err();
    assert!(
        matches!(&told, ProviderError::TooLarge(text) if text.contains("101 B") && text.contains("100 B")),
        "{told}"
    );
    assert_eq!(models.memory().0, 80, "nobody goes for one that can never fit");
}

#[tokio::test]
async fn neither_a_model_in_use_nor_one_of_the_start_makes_room() {
    let models = Models::new(100, false, None);
    let kept = models.host("kept", fake(40).0, Residence::Kept);
    kept.load().await.unwrap();
    let used = host(&models, "used", 40);
    let lease = used.0.lease(None).await.unwrap();
    let late = host(&models, "late", 40);
    let told = late.load().await.unwrap_err();
    assert!(matches!(&told, ProviderError::Stopped(text) if text.contains("20 B are available")), "{told}");
    drop(lease);
    late.load().await.unwrap();
    assert_eq!((state(&kept), state(&used)), (ModelState::Ready, ModelState::Unloaded));
}

#[tokio::test]
async fn unloading_waits_for_answers_or_breaks_them_off() {
    let models = Models::new(100, false, None);
    let model = host(&models, "one", 10);
    let lease = model.0.lease(None).await.unwrap();
    let (unloading, ending) =
        tokio::join!(tokio::time::timeout(Duration::from_millis(20), model.unload(false)), async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            assert_eq!(state(&model), ModelState::Unloading);
            model.load().await
        });
    assert!(unloading.is_err(), "somebody uses it");
    assert!(matches!(ending, Err(ProviderError::Stopped(_))), "new requests are refused");
    let mut answer = lease.hold(Answer { choices: 1, events: stream::pending().boxed() });
    let broken_off = async {
        let event = answer.events.next().await;
        drop(answer);
        event
    };
    let (unloaded, event) = tokio::join!(model.unload(true), broken_off);
    unloaded.unwrap();
    assert!(matches!(event, Some(Err(ProviderError::Stopped(_)))));
    assert_eq!((models.memory().0, state(&model)), (0, ModelState::Unloaded));
}

#[tokio::test]
async fn what_nobody_uses_goes_after_a_while_unless_it_is_of_the_start() {
    let models = Models::new(100, false, Some(Duration::from_millis(1)));
    let (kept, model) = (models.host("kept", fake(10).0, Residence::Kept), host(&models, "one", 10));
    kept.load().await.unwrap();
    model.load().await.unwrap();
    while state(&model) != ModelState::Unloaded {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!((state(&kept), models.memory().0), (ModelState::Ready, 10));
}

#[tokio::test]
async fn whoever_waits_for_a_load_goes_at_its_deadline_and_the_load_goes_on() {
    let models = Models::new(100, false, None);
    let model = host(&models, "one", 10);
    let told = model.0.lease(Some(Instant::now() + Duration::from_millis(1))).await.err();
    assert!(matches!(told, Some(ProviderError::Late { begun: false })), "{told:?}");
    while state(&model) != ModelState::Ready {
        assert_eq!(state(&model), ModelState::Loading);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(model.status().loads, 1);
}

#[tokio::test]
async fn an_answer_that_is_complete_is_not_broken_off() {
    let models = Models::new(100, false, None);
    let model = host(&models, "one", 10);
    let lease = model.0.lease(None).await.unwrap();
    let (reason, usage) = (FinishReason::Stop, Usage::new(1, 1));
    let finished = stream::iter([Ok(AnswerEvent::Finished { index: 0, reason, usage })]).chain(stream::pending());
    let mut answer = lease.hold(Answer { choices: 1, events: finished.boxed() });
    assert!(matches!(answer.events.next().await, Some(Ok(AnswerEvent::Finished { .. }))));
    let end = async {
        let event = answer.events.next().await;
        drop(answer);
        event
    };
    let (unloaded, event) = tokio::join!(model.unload(true), end);
    unloaded.unwrap();
    assert!(event.is_none());
}
