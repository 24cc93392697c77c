//! Finds the weights in the values of a file.

use crate::formats::torch::pickle::{Tree, Value};

/// Longest name of a tensor, in bytes.
const MAX_NAME: usize = 1024;

/// The prefix that `DataParallel` and `DistributedDataParallel` add to every name.
const WRAPPER: &str = "module.";

/// The names and values of the state dict, in their saved order.
pub(super) fn entries<'a>(tree: &Tree<'a>, ema: bool) -> Result<Vec<(String, Value<'a>)>, String> {
    let root = tree.root();
    let model = member(tree, root, "model_state_dict")?;
    let average = member(tree, root, "ema_state_dict")?;
    let weights = match (ema, model, average) {
        (true, _, Some(average)) => average,
        (true, _, None) => return Err("there is no `ema_state_dict` in it".into()),
        (false, Some(model), _) => model,
        (false, None, _) => root,
    };
    let entries = tree
        .entries(weights)
        .ok_or_else(|| format!("expected a state dict, found {}", tree.describe(weights)))?;
    if entries.is_empty() {
        return Err("its state dict is empty".into());
    }
    let names = entries
        .iter()
        .map(|&(key, _)| name(tree, key))
        .collect::<Result<Vec<_>, _>>()?;
    let wrapped = names
        .iter()
        .all(|name| name.len() > WRAPPER.len() && name.starts_with(WRAPPER));
    Ok(names
        .into_iter()
        .zip(entries)
        .map(|(name, &(_, value))| {
            let name = match name.strip_prefix(WRAPPER) {
                Some(inner) if wrapped => inner,
                _ => name,
            };
            (name.to_owned(), value)
        })
        .collect())
}

/// The value of `key` in the dict `value`; `None` if it is absent or `value` is not a dict.
pub(super) fn member<'a>(
    tree: &Tree<'a>,
    value: Value<'a>,
    key: &str,
) -> Result<Option<Value<'a>>, String> {
    let mut found = tree
        .entries(value)
        .unwrap_or_default()
        .iter()
        .filter(|(name, _)| matches!(name, Value::Text(name) if *name == key));
    match (found.next(), found.next()) {
        (first, None) => Ok(first.map(|&(_, value)| value)),
        (_, Some(_)) => Err(format!("`{key}` occurs twice")),
    }
}

fn name<'a>(tree: &Tree<'a>, key: Value<'a>) -> Result<&'a str, String> {
    let Value::Text(name) = key else {
        return Err(format!(
            "a key of its state dict is {}; expected the name of a tensor",
            tree.describe(key)
        ));
    };
    if name.is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control) {
        return Err(format!(
            "a tensor's name of {} bytes is empty, longer than {MAX_NAME} or not printable",
            name.len()
        ));
    }
    Ok(name)
}
