//! The streams of a corpus: lists of files that are read independently, and the stream of each
//! sequence.

use super::{group::Files, mixture::Mixture, options::CorpusOptions, shuffle};
use crate::error::{Error, Result};

/// All streams, and their order.
pub(crate) struct Streams {
    streams: Vec<Stream>,
    /// The index of each list's first stream, and the number of its streams.
    lists: Vec<(usize, usize)>,
    mixture: Mixture,
    is_sharded: bool,
}

/// Files that are read independently of the other streams.
pub(crate) struct Stream {
    /// Indices of files.
    pub(crate) files: Vec<usize>,
    /// Number of files that are read in turns.
    pub(crate) readers: usize,
    /// True if the first epoch has another order than `files`.
    pub(crate) shuffles_first: bool,
    /// The list, and with sharded files the place among its streams, from 1.
    pub(crate) id: (u64, u64),
}

impl Streams {
    /// Without [`shard_files`](CorpusOptions::shard_files) one stream per list. With them, a list
    /// has as many streams as readers, or the largest divisor of their number that is at most the
    /// number of its files, and each stream has every so-many-th of its files, as CoreNet stripes
    /// them over ranks and workers.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] if the streams of a list cannot be divided evenly among the ranks.
    pub(crate) fn new(options: &CorpusOptions, files: &Files) -> Result<Self> {
        let (mut streams, mut lists) = (Vec::new(), Vec::new());
        let mut first = 0;
        for (list, &count) in files.lists.iter().enumerate() {
            let number = list as u64;
            let mut own: Vec<usize> = (first..first + count).collect();
            first += count;
            if !options.shard_files {
                lists.push((streams.len(), 1));
                streams.push(Stream {
                    files: own,
                    readers: options.readers,
                    shuffles_first: options.shuffle_files,
                    id: (number, 0),
                });
                continue;
            }
            let shards = shards(options.readers, count);
            if !shards.is_multiple_of(options.world) {
                let problem = format!(
                    "expected a divisor of {shards}, the number of readers for {count} files with \
                     shard_files, found {}",
                    options.world
                );
                return Err(Error::option("world", problem));
            }
            if options.shuffle_files {
                shuffle::files(&mut own, options.seed, 0, (number, 0));
            }
            lists.push((streams.len(), shards));
            streams.extend((0..shards).map(|shard| Stream {
                files: own.iter().copied().skip(shard).step_by(shards).collect(),
                readers: 1,
                shuffles_first: false,
                id: (number, shard as u64 + 1),
            }));
        }
        Ok(Self {
            streams,
            lists,
            mixture: Mixture::new(options.weights().as_deref()),
            is_sharded: options.shard_files,
        })
    }

    /// The stream of the sequence `number`. With sharded files, the streams of a list take turns,
    /// so that rank `r` of `world` reads the streams `r`, `r + world` and so on.
    pub(crate) fn of_sequence(&self, number: u64) -> usize {
        let list = self.mixture.list(number);
        let (first, count) = self.lists.get(list).copied().unwrap_or((0, 1));
        first + usize::try_from(number % count as u64).unwrap_or_default()
    }

    /// The rank of `world` that reads a stream; `None` if every rank does.
    pub(crate) fn rank(&self, stream: usize, world: usize) -> Option<usize> {
        let (_, shard) = self.streams.get(stream)?.id;
        shard.checked_sub(1).map(|shard| shard as usize % world)
    }

    pub(crate) fn all(&self) -> &[Stream] {
        &self.streams
    }

    pub(crate) fn is_sharded(&self) -> bool {
        self.is_sharded
    }
}

/// The largest divisor of `readers` that is at most `files`.
fn shards(readers: usize, files: usize) -> usize {
    let most = readers.min(files).max(1);
    let divides = |count: &usize| readers.is_multiple_of(*count);
    (1..=most).rev().find(divides).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_divide_the_readers() {
        for (readers, files, expected) in [
            (512, 8667, 512),
            (512, 20, 16),
            (512, 1, 1),
            (1, 9, 1),
            (12, 9, 6),
        ] {
            assert_eq!(shards(readers, files), expected, "{readers} {files}");
        }
    }
}
