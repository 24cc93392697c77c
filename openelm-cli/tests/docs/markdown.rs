//! Markdown files of the repository and their code blocks.

use std::{fs, path::Path};

use openelm_testing::repository;

/// A Markdown file.
pub(crate) struct Page {
    /// Path in the repository.
    pub(crate) name: String,
    pub(crate) text: String,
}

/// A fenced code block.
pub(crate) struct Block<'p> {
    page: &'p Page,
    /// Number of its first line, from 1.
    pub(crate) line: usize,
    /// First word of the info string.
    pub(crate) language: String,
    /// True if `no-run` follows.
    pub(crate) no_run: bool,
    pub(crate) text: String,
}

impl Page {
    /// All Markdown files of the repository.
    pub(crate) fn all() -> Vec<Self> {
        let mut pages = Vec::new();
        collect(&repository(""), "", &mut pages);
        assert!(pages.iter().any(|page| page.name == "README.md"));
        pages
    }

    pub(crate) fn blocks(&self) -> impl Iterator<Item = Block<'_>> {
        let mut blocks = Vec::new();
        let mut open: Option<Block<'_>> = None;
        for (index, line) in self.text.lines().enumerate() {
            let fence = line.trim_start().strip_prefix("```");
            match (fence, &mut open) {
                (Some(_), Some(_)) => blocks.extend(open.take()),
                (Some(info), None) => {
                    let mut words = info.split_whitespace();
                    open = Some(Block {
                        page: self,
                        line: index + 2,
                        language: words.next().unwrap_or_default().to_owned(),
                        no_run: words.any(|word| word == "no-run"),
                        text: String::new(),
                    });
                }
                (None, Some(block)) => {
                    block.text.push_str(line);
                    block.text.push('\n');
                }
                (None, None) => {}
            }
        }
        assert!(open.is_none(), "{}: an open code block", self.name);
        blocks.into_iter()
    }

    /// The text without code blocks, with the numbers of its lines.
    pub(crate) fn prose(&self) -> impl Iterator<Item = (usize, &str)> {
        let mut code = false;
        self.text
            .lines()
            .enumerate()
            .filter_map(move |(index, line)| {
                let fence = line.trim_start().starts_with("```");
                code ^= fence;
                (!code && !fence).then_some((index + 1, line))
            })
    }
}

impl Block<'_> {
    pub(crate) fn place(&self) -> String {
        format!("{}:{}", self.page.name, self.line)
    }

    /// Lines with a command, continued lines joined, without comments.
    pub(crate) fn commands(&self) -> Vec<String> {
        let joined = self.text.replace("\\\n", " ");
        let lines = joined.lines().map(str::trim);
        lines
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(str::to_owned)
            .collect()
    }
}

fn collect(folder: &Path, prefix: &str, pages: &mut Vec<Page>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let kind = entry.file_type().unwrap();
        let path = format!("{prefix}{name}");
        if kind.is_dir() && !name.starts_with('.') && name != "target" && name != "out" {
            collect(&entry.path(), &format!("{path}/"), pages);
        } else if kind.is_file() && name.ends_with(".md") {
            let text = fs::read_to_string(entry.path()).unwrap();
            pages.push(Page { name: path, text });
        }
    }
}
