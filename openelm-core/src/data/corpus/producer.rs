//! The thread that makes the sequences of a corpus.

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
};

use super::{
    assemble::{Assembled, Assembler},
    fragments,
    options::CorpusOptions,
    reader::{Fragment, Next, Reader},
    sequence::Sequence,
    state::{CorpusState, Mark},
};
use crate::{
    error::{Error, Result},
    parallel,
    tokenizer::Tokenizer,
};

/// Number of sequences made ahead, in addition to the fragments in progress.
const QUEUE: usize = 32;
/// Largest number of fragments tokenised together, and the text size that suffices, in bytes.
const PIECES: usize = 64;
const BYTES: usize = 1 << 20;

/// A sequence, or `None` at the end, and the state after it.
type Item = Result<(Option<Sequence>, CorpusState)>;

/// The thread and its output queue.
pub(crate) struct Producer {
    items: Option<Receiver<Item>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Producer {
    pub(crate) fn start(
        options: &Arc<CorpusOptions>,
        files: &Arc<Vec<PathBuf>>,
        tokenizer: &Tokenizer,
        state: &CorpusState,
    ) -> Self {
        let (sender, items) = sync_channel(QUEUE);
        let stop = Arc::new(AtomicBool::new(false));
        let mut work = Work {
            reader: Reader::new(options, files, state.mark.clone()),
            assembler: Assembler::new(options, state.clone()),
            options: Arc::clone(options),
            files: Arc::clone(files),
            tokenizer: tokenizer.clone(),
            round: Vec::new(),
            sender: sender.clone(),
            stop: Arc::clone(&stop),
        };
        let spawned = thread::Builder::new().name("corpus".into()).spawn(move || {
            if let Err(error) = work.run() {
                // After a stop there is no receiver.
                let _ = work.sender.send(Err(error));
            }
        });
        let thread = match spawned {
            Ok(thread) => Some(thread),
            Err(problem) => {
                let _ = sender.send(Err(Error::io("corpus")(problem)));
                None
            }
        };
        Self {
            items: Some(items),
            stop,
            thread,
        }
    }

    pub(crate) fn next(&mut self) -> Item {
        let item = self.items.as_ref().and_then(|items| items.recv().ok());
        item.unwrap_or_else(|| {
            let problem = io::Error::other("the thread that reads it ended unexpectedly");
            Err(Error::io("corpus")(problem))
        })
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Without a receiver, a thread that waits for space in the queue continues, and ends.
        self.items = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Work {
    options: Arc<CorpusOptions>,
    files: Arc<Vec<PathBuf>>,
    tokenizer: Tokenizer,
    reader: Reader,
    assembler: Assembler,
    /// Sequences of an incomplete round, in which not every rank has one.
    round: Vec<Sequence>,
    sender: SyncSender<Item>,
    stop: Arc<AtomicBool>,
}

/// The reason why reading paused.
enum Pause {
    Enough,
    Epoch(Mark),
    End(Mark),
    Failed(Error),
}

impl Work {
    fn run(&mut self) -> Result<()> {
        let mut made = Vec::new();
        loop {
            let (read, pause) = self.read();
            let tokens = parallel::map(&read, |fragment| encode(&self.tokenizer, &fragment.text))?;
            for (fragment, tokens) in read.into_iter().zip(tokens) {
                self.assembler.add(&tokens, fragment.after, &mut made);
                if !self.hand_out(&mut made) {
                    return Ok(());
                }
            }
            match pause {
                Pause::Enough => {}
                Pause::Epoch(mark) => {
                    self.assembler.read(&mark);
                    self.check_kept()?;
                }
                Pause::Failed(error) => return Err(error),
                Pause::End(mark) => {
                    self.assembler.end(mark);
                    self.check_kept()?;
                    self.assembler.flush(&mut made);
                    if self.hand_out(&mut made) {
                        self.assembler.made().left_over += self.round.len() as u64;
                        let end = self.assembler.state().clone();
                        let _ = self.sender.send(Ok((None, end)));
                    }
                    return Ok(());
                }
            }
            if self.stop.load(Ordering::Relaxed) {
                return Ok(());
            }
        }
    }

    fn read(&mut self) -> (Vec<Fragment>, Pause) {
        let mut read = Vec::new();
        let mut bytes = 0;
        while read.len() < PIECES && bytes < BYTES {
            match self.reader.next() {
                Ok(Next::Fragment(fragment)) => {
                    bytes += fragment.text.len();
                    read.push(fragment);
                }
                Ok(Next::Epoch(mark)) => return (read, Pause::Epoch(mark)),
                Ok(Next::End(mark)) => return (read, Pause::End(mark)),
                Err(error) => return (read, Pause::Failed(error)),
            }
        }
        (read, Pause::Enough)
    }

    /// Puts this rank's share of `made` into the queue; false if there is no receiver.
    fn hand_out(&mut self, made: &mut Vec<Assembled>) -> bool {
        for Assembled { sequence, state } in made.drain(..) {
            self.round.push(sequence);
            if self.round.len() < self.options.world {
                continue;
            }
            let own = self.round.drain(..).nth(self.options.rank);
            if own.is_some() && self.sender.send(Ok((own, state))).is_err() {
                return false;
            }
        }
        true
    }

    /// Fails if an epoch has no sequence: an unlimited corpus would be read forever.
    fn check_kept(&self) -> Result<()> {
        let state = self.assembler.state();
        if state.made.kept > 0 {
            return Ok(());
        }
        let found = state.statistics();
        let path = self.files.first().cloned().unwrap_or_default();
        let corrupt: u64 = found.corrupt.iter().map(|file| file.count).sum();
        let problem = format!(
            "no document is left of {} files: {} documents gave {} fragments, of which {} have fewer \
             than {} characters and {} fewer than {} tokens; {corrupt} rows or files could not be \
             read",
            self.files.len(),
            found.documents,
            found.fragments,
            found.dropped_by_characters,
            self.options.min_characters,
            found.dropped_by_tokens,
            self.options.min_tokens,
        );
        Err(Error::data(&path, None, problem))
    }
}

/// BOS, the text, EOS.
fn encode(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>> {
    let text = tokenizer.encode(&fragments::normalized(text))?;
    let mut tokens = Vec::with_capacity(text.len() + 2);
    tokens.push(tokenizer.bos_id());
    tokens.extend(text);
    tokens.push(tokenizer.eos_id());
    Ok(tokens)
}
