//! Which files of a repository make a model, for repositories whose card does not list them.

use super::card::FileName;

/// Files read beside the weights, where the repository has them.
const COMPANIONS: [&str; 9] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
];

/// Picks the files to fetch from everything the repository has, or says why there is no model in it.
///
/// Safetensors with their companions win over PyTorch's own files, and those over GGUF; of GGUF there must be one file
/// only, for each is a whole model.
pub(super) fn choose_files(listing: &[FileName]) -> Result<Vec<FileName>, String> {
    let kinds = [("model.safetensors", "model-", ".safetensors"), ("pytorch_model.bin", "pytorch_model-", ".bin")];
    let mut weights = kinds.into_iter().map(|(single, shard, ending)| choose_weights(listing, single, (shard, ending)));
    let Some(weights) = weights.find(|weights| !weights.is_empty()) else { return choose_gguf(listing) };
    let has_tokenizer = listing.iter().any(|name| name.as_str() == "tokenizer.json");
    let is_companion = |name: &&FileName| match name.as_str() {
        // Says the same in a format of its own.
        "tokenizer.model" => !has_tokenizer,
        other => COMPANIONS.contains(&other) || is_module_config(name),
    };
    let companions = listing.iter().filter(is_companion);
    Ok(companions.cloned().chain(weights).collect())
}

/// The one file of weights, or the index of several with them. `shard`: how their names begin and end.
fn choose_weights(listing: &[FileName], single: &str, shard: (&str, &str)) -> Vec<FileName> {
    let has = |wanted: &str| listing.iter().find(|name| name.as_str() == wanted);
    if let Some(single) = has(single) {
        return vec![single.clone()];
    }
    let Some(index) = has(&format!("{single}.index.json")) else { return Vec::new() };
    let is_shard = |name: &&FileName| name.as_str().starts_with(shard.0) && name.as_str().ends_with(shard.1);
    listing.iter().filter(is_shard).chain([index]).cloned().collect()
}

fn choose_gguf(listing: &[FileName]) -> Result<Vec<FileName>, String> {
    let ggufs: Vec<&FileName> = listing.iter().filter(|name| name.as_str().ends_with(".gguf")).collect();
    match ggufs.as_slice() {
        [only] => Ok(vec![(*only).clone()]),
        [] => {
            Err("has neither model.safetensors, nor pytorch_model.bin, nor an index of either, nor a .gguf file".into())
        }
        many => {
            let names: Vec<&str> = many.iter().map(|name| name.as_str()).collect();
            Err(format!("has several .gguf files; download one and give its path: {}", names.join(", ")))
        }
    }
}

/// `1_Pooling/config.json` and its like: the modules that sentence-transformers numbers.
fn is_module_config(name: &FileName) -> bool {
    name.as_str().strip_suffix("/config.json").is_some_and(|folder| {
        let (number, rest) = folder.split_once('_').unwrap_or_default();
        !number.is_empty() && number.chars().all(|c| c.is_ascii_digit()) && !rest.contains('/')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(listing: &[&str]) -> Result<Vec<String>, String> {
        let listing: Vec<FileName> =
            listing.iter().map(|name| FileName::try_from((*name).to_owned()).unwrap()).collect();
        choose_files(&listing).map(|names| names.into_iter().map(String::from).collect())
    }

    #[test]
    fn a_tokenizer_model_is_taken_where_there_is_no_tokenizer_json() {
        let without = ["config.json", "tokenizer.model", "model.safetensors"];
        assert_eq!(choose(&without).unwrap(), without);
        let with = ["tokenizer.json", "tokenizer.model", "model.safetensors"];
        assert_eq!(choose(&with).unwrap(), ["tokenizer.json", "model.safetensors"]);
    }

    #[test]
    fn a_sentence_transformers_folder_keeps_its_modules() {
        let listing = [
            "README.md",
            "config.json",
            "1_Pooling/config.json",
            "onnx/config.json",
            "pytorch_model.bin",
            "model.safetensors",
        ];
        assert_eq!(choose(&listing).unwrap(), ["config.json", "1_Pooling/config.json", "model.safetensors"]);
    }

    #[test]
    fn shards_come_with_their_index() {
        let listing = [
            "config.json",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "model.safetensors.index.json",
            "original/model-x.safetensors",
        ];
        assert_eq!(choose(&listing).unwrap(), &listing[..4]);
    }

    #[test]
    fn several_gguf_files_are_listed_and_none_is_taken() {
        assert_eq!(choose(&["README.md", "a.gguf"]).unwrap(), ["a.gguf"]);
        let reason = choose(&["a.gguf", "b.gguf"]).unwrap_err();
        assert!(reason.contains("a.gguf, b.gguf"), "{reason}");
        assert!(choose(&["model.onnx"]).unwrap_err().contains("neither"));
    }

    #[test]
    fn pytorch_files_are_taken_where_there_are_no_safetensors() {
        let whole = ["config.json", "sentence_bert_config.json", "pytorch_model.bin", "colbert_linear.pt", "a.gguf"];
        assert_eq!(choose(&whole).unwrap(), &whole[..3]);
        let shards =
            ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin", "pytorch_model.bin.index.json"];
        assert_eq!(choose(&shards).unwrap(), shards);
    }
}
