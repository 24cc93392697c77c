//! Names that a server sends, before they become paths.

use std::{
    collections::HashSet,
    path::{Component, Path},
};

/// True for a relative path that stays in its folder: no `..`, no absolute path, no empty part, no
/// backslash, no control character.
pub(super) fn is_safe(name: &str) -> bool {
    let parts = name.split('/');
    let is_part = |part: &str| {
        !part.is_empty()
            && part != "."
            && part != ".."
            && part.len() <= 255
            && !part.contains(|c: char| c == '\\' || c == ':' || c.is_control())
    };
    let is_normal = |component: Component<'_>| matches!(component, Component::Normal(_));
    name.len() <= 1024
        && parts.into_iter().all(is_part)
        && Path::new(name).components().all(is_normal)
}

/// The first name that is no safe path, or else that another name needs as a folder.
pub(super) fn first_unsafe(names: &[String]) -> Option<&String> {
    // Only safe names are short.
    let first = names.iter().find(|name| !is_safe(name));
    first.or_else(|| {
        let folders: HashSet<&str> = names.iter().flat_map(|name| folders_of(name)).collect();
        names.iter().find(|name| folders.contains(name.as_str()))
    })
}

/// The folders that the file `name` is in.
fn folders_of(name: &str) -> impl Iterator<Item = &str> {
    let ends = name.match_indices('/').map(|(end, _)| end);
    ends.filter_map(|end| name.get(..end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_names_that_leave_the_folder() {
        for name in ["config.json", "a/b/c.json", ".gitattributes", "ä b.txt"] {
            assert!(is_safe(name), "{name}");
        }
        let long = "a".repeat(256);
        for name in [
            "",
            "/etc/passwd",
            "..",
            "../a",
            "a/../b",
            "a//b",
            "a/",
            "./a",
            "a\\b",
            "c:a",
            "a\0",
            "a\nb",
            &long,
        ] {
            assert!(!is_safe(name), "{name:?}");
        }
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let names: [Vec<String>; 2] = [names(&["a", "a.json", "b/c"]), names(&["a/b", "a"])];
        assert_eq!(first_unsafe(&names[0]), None);
        assert_eq!(first_unsafe(&names[1]), Some(&"a".to_owned()));
    }

    #[test]
    fn reads_the_names_of_large_repositories() {
        let name = |index| format!("data/{}/part-{index}.parquet", index % 1000);
        let mut names: Vec<String> = (0..200_000).map(name).collect();
        assert_eq!(first_unsafe(&names), None);
        names.push("data/999".into());
        assert_eq!(first_unsafe(&names), names.last());
        names.push("a/".repeat(10_000_000));
        assert_eq!(first_unsafe(&names), names.last());
    }
}
