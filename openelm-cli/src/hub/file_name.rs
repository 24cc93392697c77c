//! Names that a server sends, before they become paths.

use std::path::{Component, Path};

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

/// The first name that is no safe path, or that another name needs as a folder.
pub(super) fn first_unsafe(names: &[String]) -> Option<&String> {
    let is_folder_of = |name: &str, other: &str| {
        let rest = other.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with('/'))
    };
    names
        .iter()
        .find(|name| !is_safe(name) || names.iter().any(|other| is_folder_of(name, other)))
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
}
