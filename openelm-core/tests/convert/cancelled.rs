//! Cancelled conversions leave the target unchanged.

use std::{cell::Cell, fs};

use openelm_core::{
    CancelHandle, Dtype, Error,
    convert::{self, ConvertEvent, ConvertOptions, FileType, Format},
};
use openelm_testing::TempDir;

use crate::models::{convert, files, plain, small, with_source};

/// Cancels at event `at`, counted from 0. Returns the number of events.
fn cancelled_at(
    folder: &TempDir,
    target: &str,
    options: &ConvertOptions,
    at: usize,
) -> (Result<(), Error>, usize) {
    let cancel = CancelHandle::default();
    let count = Cell::new(0);
    let progress = |_: ConvertEvent<'_>| {
        if count.get() == at {
            cancel.cancel();
        }
        count.set(count.get() + 1);
    };
    let result = convert::convert(
        folder.join("source"),
        folder.join(target),
        options,
        &cancel,
        progress,
    );
    (result.map(|_| ()), count.get())
}

#[test]
fn reports_progress_by_tensor() {
    let (folder, tensors) = with_source(&small(), Dtype::Float32);
    let (mut written, mut verified) = (Vec::new(), Vec::new());
    convert::convert(
        folder.join("source"),
        folder.join("target"),
        &plain(),
        &CancelHandle::default(),
        |event| match event {
            ConvertEvent::Written { name, done, total } => {
                written.push((name.to_owned(), done, total))
            }
            ConvertEvent::Verifying { done, total } => verified.push((done, total)),
        },
    )
    .unwrap();
    let bytes = 4 * small().parameter_count();
    assert_eq!(written.len(), tensors.len());
    assert!(written.is_sorted_by(|a, b| a.1 < b.1));
    assert!(
        written
            .iter()
            .all(|(name, _, total)| *total == bytes && tensors.contains_key(name))
    );
    assert_eq!(written.last().unwrap().1, bytes);
    let count = tensors.len() as u64;
    assert_eq!(verified.first(), Some(&(0, count)));
    assert_eq!(verified.last(), Some(&(count, count)));
    assert!(verified.is_sorted());
}

#[test]
fn cancelling_keeps_the_old_target() {
    let (folder, _) = with_source(&small(), Dtype::Float32);
    for (target, format) in [
        ("target", Format::Mlx),
        ("small.gguf", Format::Gguf(FileType::F16)),
    ] {
        let options = ConvertOptions { format, ..plain() };
        convert(&folder.join("source"), &folder.join(target), &options).unwrap();
        // The new model differs from the existing one.
        let fresh = match format {
            Format::Gguf(_) => ConvertOptions {
                format: Format::Gguf(FileType::F32),
                ..plain()
            },
            _ => ConvertOptions {
                dtype: Some(Dtype::Float16),
                ..plain()
            },
        };
        let options = ConvertOptions {
            force: true,
            ..fresh
        };
        let before = files(&folder);
        let (result, events) = cancelled_at(&folder, target, &options, usize::MAX);
        result.unwrap();
        assert_ne!(files(&folder), before);
        assert!(events > 20, "{events}");
        fs::remove_dir_all(folder.join(target))
            .or_else(|_| fs::remove_file(folder.join(target)))
            .unwrap();
        for (name, bytes) in &before {
            if name == target && format == Format::Mlx {
                fs::create_dir(folder.join(name)).unwrap();
            } else if name.starts_with(target) {
                fs::write(folder.join(name), bytes).unwrap();
            }
        }
        assert_eq!(files(&folder), before);
        for at in [
            0,
            1,
            events / 4,
            events / 2,
            events - 3,
            events - 2,
            events - 1,
        ] {
            let (result, events) = cancelled_at(&folder, target, &options, at);
            assert!(matches!(result, Err(Error::Cancelled)), "{at}: {result:?}");
            assert_eq!(events, at + 1);
            assert!(files(&folder) == before, "{at}: {:?}", folder.names());
        }
    }
}

#[test]
fn cancelling_leaves_no_new_target() {
    let (folder, _) = with_source(&small(), Dtype::Float32);
    for at in [0, 7, 20] {
        let (result, _) = cancelled_at(&folder, "target", &plain(), at);
        assert!(matches!(result, Err(Error::Cancelled)), "{at}: {result:?}");
        assert_eq!(folder.names(), ["source"]);
    }
    // Cancelled before the conversion starts.
    let cancel = CancelHandle::default();
    cancel.cancel();
    let options = ConvertOptions {
        verify: false,
        ..plain()
    };
    let result = convert::convert(
        folder.join("source"),
        folder.join("target"),
        &options,
        &cancel,
        |_| {},
    );
    assert!(matches!(result, Err(Error::Cancelled)));
    assert_eq!(folder.names(), ["source"]);
}
