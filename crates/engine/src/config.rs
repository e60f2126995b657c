//! What the environment says. The only module of the engine that reads it.

use std::env;
use std::fmt;
use std::fs;
use std::path::PathBuf;

/// Where models lie and how they are fetched.
#[derive(Clone)]
pub struct HubConfig {
    /// Root of our own cache; models are in `models/` below it.
    pub cache: PathBuf,
    /// Root of the hub's cache, shared with its other clients; without one, a folder below `cache`.
    pub hf_home: Option<PathBuf>,
    /// Token for gated and private repositories.
    pub token: Option<String>,
    /// Base URL of the hub, if not the public one.
    pub endpoint: Option<String>,
    /// Proxy through which the hub is reached.
    pub proxy: Option<String>,
    /// Fetch nothing; use what is on disk.
    pub offline: bool,
    /// Python whose pip downloads packages; found on PATH when it is a bare name.
    pub python: PathBuf,
}

impl HubConfig {
    /// Reads `HEARTH_CACHE`, `HEARTH_OFFLINE`, `HF_HOME`, `HF_TOKEN` (or the file `$HF_HOME/token`), `HF_ENDPOINT`,
    /// `HF_HUB_OFFLINE`, the proxy variables and `XDG_CACHE_HOME`. An empty variable counts as absent.
    pub fn from_environment() -> Self {
        Self::from_lookup(&|name| env::var(name).ok(), env::home_dir())
    }

    /// Nothing but a cache folder: the public hub, no token, pip of `python3`.
    pub fn with_cache(cache: impl Into<PathBuf>) -> Self {
        Self {
            cache: cache.into(),
            hf_home: None,
            token: None,
            endpoint: None,
            proxy: None,
            offline: false,
            python: PathBuf::from("python3"),
        }
    }

    fn from_lookup(variable: &dyn Fn(&str) -> Option<String>, home: Option<PathBuf>) -> Self {
        let text = |name: &str| variable(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        let any = |names: &[&str]| names.iter().find_map(|name| text(name));
        let flag = |name: &str| text(name).is_some_and(|value| is_true(&value));
        let caches = text("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .or_else(|| home.map(|home| home.join(".cache")))
            .unwrap_or_else(env::temp_dir);
        let hf_home = text("HF_HOME").map_or_else(|| caches.join("huggingface"), PathBuf::from);
        Self {
            cache: text("HEARTH_CACHE").map_or_else(|| caches.join("hearth"), PathBuf::from),
            token: text("HF_TOKEN").or_else(|| {
                let written = fs::read_to_string(hf_home.join("token")).ok()?;
                Some(written.trim().to_owned()).filter(|token| !token.is_empty())
            }),
            hf_home: Some(hf_home),
            endpoint: text("HF_ENDPOINT").map(|url| url.trim_end_matches('/').to_owned()),
            // In the order in which the HTTP client looks for them.
            proxy: any(&["ALL_PROXY", "all_proxy", "HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"]),
            offline: flag("HEARTH_OFFLINE") || flag("HF_HUB_OFFLINE"),
            python: PathBuf::from("python3"),
        }
    }
}

/// The spellings that the hub's own client takes for "on".
fn is_true(value: &str) -> bool {
    matches!(value.to_ascii_lowercase().as_str(), "1" | "true" | "yes" | "on")
}

impl fmt::Debug for HubConfig {
    /// Leaves out the token and the proxy, whose URL may carry a password.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("HubConfig")
            .field("cache", &self.cache)
            .field("hf_home", &self.hf_home)
            .field("token", &self.token.as_ref().map(|_| "<hidden>"))
            .field("endpoint", &self.endpoint)
            .field("offline", &self.offline)
            .field("python", &self.python)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn config(variables: &[(&str, &str)]) -> HubConfig {
        let variables: HashMap<_, _> = variables.iter().copied().collect();
        let lookup = |name: &str| variables.get(name).map(ToString::to_string);
        HubConfig::from_lookup(&lookup, Some(PathBuf::from("/home/someone")))
    }

    #[test]
    fn an_empty_environment_gives_the_usual_folders() {
        let config = config(&[("HF_TOKEN", " ")]);
        assert_eq!(config.cache, PathBuf::from("/home/someone/.cache/hearth"));
        assert_eq!(config.hf_home, Some(PathBuf::from("/home/someone/.cache/huggingface")));
        assert!(config.token.is_none() && config.endpoint.is_none() && !config.offline);
    }

    #[test]
    fn variables_are_honoured() {
        let config = config(&[
            ("HEARTH_CACHE", "/data/models"),
            ("HF_HOME", "/data/hub"),
            ("HF_TOKEN", "secret"),
            ("HF_ENDPOINT", "https://mirror.example/"),
            ("HF_HUB_OFFLINE", "1"),
            ("https_proxy", "http://proxy.example:3128"),
        ]);
        assert_eq!(config.cache, PathBuf::from("/data/models"));
        assert_eq!(config.hf_home, Some(PathBuf::from("/data/hub")));
        assert_eq!(config.endpoint.as_deref(), Some("https://mirror.example"));
        assert_eq!(config.proxy.as_deref(), Some("http://proxy.example:3128"));
        assert!(config.offline);
        assert!(!format!("{config:?}").contains("secret"));
    }

    #[test]
    fn the_token_file_is_read_when_no_variable_is_set() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("token"), "from-file\n").unwrap();
        let folder = home.path().to_str().unwrap();
        assert_eq!(config(&[("HF_HOME", folder)]).token.as_deref(), Some("from-file"));
        assert_eq!(config(&[("HF_HOME", folder), ("HF_TOKEN", "set")]).token.as_deref(), Some("set"));
    }

    #[test]
    fn offline_can_be_said_to_be_off() {
        assert!(!config(&[("HEARTH_OFFLINE", "0")]).offline);
        assert!(config(&[("HEARTH_OFFLINE", "true")]).offline);
    }
}
