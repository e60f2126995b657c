//! The house's rules, checked on the source itself: layers, sizes of files and functions, where `unsafe` and the CUDA
//! switch may stand, and which names are not used.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Most lines of a file before its tests.
const FILE_LINES: usize = 400;

/// The layers of the engine, lowest first; a module uses only what stands in an earlier layer or its own.
/// `kv` counts as layer 2 for what is below the operations and as layer 4 for its tensors.
const LAYERS: &[(&str, u8)] = &[
    ("error", 0),
    ("ids", 0),
    ("config", 1),
    ("device", 1),
    ("memory", 1),
    ("hub", 1),
    ("weights", 1),
    ("checkpoint", 1),
    ("kv", 2),
    ("ops", 3),
    ("layers", 5),
    ("models", 6),
    ("schedule", 7),
    ("text", 7),
    ("run", 8),
    ("export", 8),
    ("serve", 9),
];

struct Source {
    path: String,
    text: String,
}

impl Source {
    /// The lines before the tests.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines: Vec<&str> = self.text.lines().collect();
        let begins = |pair: &[&str]| pair[0] == "#[cfg(test)]" && pair[1].ends_with("mod tests {");
        let tests = lines.windows(2).position(begins).unwrap_or(lines.len());
        lines.into_iter().take(tests).enumerate().map(|(index, line)| (index + 1, line))
    }

    /// The lines of code that are no comment.
    fn statements(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code().filter(|(_, line)| !line.trim_start().starts_with("//"))
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests are a folder of the workspace").to_owned()
}

fn collect(folder: &Path, sources: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let path = path.strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/");
            sources.push(Source { path, text });
        }
    }
}

/// Every source file of the crates' libraries and programs.
fn sources() -> Vec<Source> {
    let mut sources = Vec::new();
    for entry in fs::read_dir(root().join("crates")).unwrap().map(Result::unwrap) {
        collect(&entry.path().join("src"), &mut sources);
    }
    assert!(sources.len() > 50, "the sources are not where they are looked for");
    sources
}

fn faults(check: impl Fn(&Source) -> Vec<String>) {
    let faults: Vec<String> = sources().iter().flat_map(check).collect();
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn files_are_short() {
    faults(|source| {
        let lines = source.code().count();
        let fault = format!("{}: {lines} lines before its tests, {FILE_LINES} at most", source.path);
        (lines > FILE_LINES).then_some(fault).into_iter().collect()
    });
}

#[test]
fn every_module_says_what_it_owns() {
    faults(|source| {
        let fault = format!("{}: does not begin with a `//!` comment", source.path);
        (!source.text.starts_with("//!")).then_some(fault).into_iter().collect()
    });
}

#[test]
fn a_module_uses_only_what_stands_lower() {
    let layers: BTreeMap<&str, u8> = LAYERS.iter().copied().collect();
    let layer_of = |module: &str, path: &str| match (module, path.ends_with("kv/store.rs")) {
        ("kv", true) => Some(4),
        _ => layers.get(module).copied(),
    };
    faults(|source| {
        let Some(inner) = source.path.strip_prefix("crates/engine/src/") else { return Vec::new() };
        let module = inner.split(['/', '.']).next().unwrap();
        let Some(own) = layer_of(module, inner) else { return unknown(module, inner) };
        let mut faults = Vec::new();
        for (line, text) in source.statements() {
            let depth = inner.matches('/').count();
            if text.contains(&"super::".repeat(depth + 1)) {
                faults.push(format!("{}:{line}: leaves its module by `super`, unseen", source.path));
            }
            for used in text.split("crate::").skip(1) {
                if used.starts_with('{') {
                    faults.push(format!("{}:{line}: name one module a line, so that it can be checked", source.path));
                    continue;
                }
                let used = used.split(|letter: char| !letter.is_alphanumeric() && letter != '_').next().unwrap();
                let allowed = used.chars().next().is_none_or(char::is_uppercase)
                    || used == module
                    || layers.get(used).is_some_and(|layer| *layer <= own)
                    || (inner == "error.rs" && ["device", "weights", "text"].contains(&used));
                if !allowed {
                    faults.push(format!("{}:{line}: layer {own} uses `{used}`", source.path));
                }
            }
        }
        faults
    });
}

fn unknown(module: &str, path: &str) -> Vec<String> {
    match module {
        "lib" => Vec::new(),
        _ => vec![format!("{path}: module `{module}` stands in no layer")],
    }
}

#[test]
fn what_plans_and_samples_sees_no_tensor() {
    let blind = ["crates/engine/src/schedule/", "crates/engine/src/text/", "crates/sampler/"];
    let blind_files = ["block", "pool", "prefix"].map(|file| format!("crates/engine/src/kv/{file}.rs"));
    faults(|source| {
        let checked = blind.iter().any(|folder| source.path.starts_with(folder)) || blind_files.contains(&source.path);
        let tensor = |text: &str| text.contains("candle") || text.contains("Tensor");
        let lines = source.statements().filter(|(_, text)| checked && tensor(text));
        lines.map(|(line, _)| format!("{}:{line}: knows a tensor", source.path)).collect()
    });
}

#[test]
fn the_engine_sees_no_http() {
    faults(|source| {
        let checked = !source.path.starts_with("crates/server/");
        let lines =
            source.statements().filter(|(_, text)| checked && (text.contains("axum::") || text.contains("hyper::")));
        lines.map(|(line, _)| format!("{}:{line}: knows HTTP", source.path)).collect()
    });
}

#[test]
fn a_model_sees_no_request_and_no_sampler() {
    faults(|source| {
        let checked = ["models/", "layers/", "ops/"]
            .iter()
            .any(|room| source.path.starts_with(&format!("crates/engine/src/{room}")));
        let lines = source.statements().filter(|(_, text)| checked && text.contains("hearth_sampler"));
        lines.map(|(line, _)| format!("{}:{line}: knows the sampler", source.path)).collect()
    });
}

#[test]
fn unsafe_stands_in_the_kernels_and_the_weight_map_alone() {
    faults(|source| {
        let allowed = source.path.starts_with("crates/kernels/") || source.path == "crates/engine/src/weights/map.rs";
        let word =
            |text: &str| text.split(|letter: char| !letter.is_alphanumeric() && letter != '_').any(|w| w == "unsafe");
        let lines = source.statements().filter(|(_, text)| !allowed && word(text));
        lines.map(|(line, _)| format!("{}:{line}: unsafe", source.path)).collect()
    });
}

#[test]
fn the_cuda_switch_stands_in_device_ops_and_kernels_alone() {
    let allowed = ["crates/engine/src/device.rs", "crates/engine/src/ops/", "crates/kernels/"];
    faults(|source| {
        let free = allowed.iter().any(|place| source.path.starts_with(place));
        let lines = source.statements().filter(|(_, text)| !free && text.contains("feature = \"cuda\""));
        lines.map(|(line, _)| format!("{}:{line}: cfg(feature = \"cuda\")", source.path)).collect()
    });
}

#[test]
fn the_environment_is_read_by_config_alone() {
    faults(|source| {
        let allowed = ["/config.rs", "cli/mod.rs"].iter().any(|end| source.path.ends_with(end))
            || source.path.starts_with("crates/server/src/config/");
        let reads = |text: &str| text.contains("env::var") || text.contains("from_env(");
        let lines = source.statements().filter(|(_, text)| !allowed && reads(text));
        lines.map(|(line, _)| format!("{}:{line}: reads the environment", source.path)).collect()
    });
}

#[test]
fn names_say_what_a_thing_is() {
    const EMPTY_WORDS: [&str; 4] = ["Manager", "Helper", "Utils", "Util"];
    faults(|source| {
        let defines = |text: &str| {
            let name = ["struct ", "enum ", "trait ", "type "].iter().find_map(|word| text.split(word).nth(1));
            let name = name.unwrap_or_default().split(|letter: char| !letter.is_alphanumeric()).next().unwrap();
            EMPTY_WORDS.iter().any(|empty| name.ends_with(empty))
        };
        let lines = source.statements().filter(|(_, text)| defines(text));
        lines.map(|(line, text)| format!("{}:{line}: {}", source.path, text.trim())).collect()
    });
}

#[test]
fn no_test_is_ignored_and_nothing_is_left_to_do() {
    faults(|source| {
        let left = |text: &str| ["#[ignore", "todo!(", "unimplemented!("].iter().any(|word| text.contains(word));
        let lines = source.text.lines().enumerate().filter(|(_, text)| left(text));
        lines.map(|(line, text)| format!("{}:{}: {}", source.path, line + 1, text.trim())).collect()
    });
}
