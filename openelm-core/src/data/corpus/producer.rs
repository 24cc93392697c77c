//! The thread that makes the sequences of a corpus.

use std::{
    collections::{BTreeMap, VecDeque},
    io, mem,
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
    group::Files,
    options::CorpusOptions,
    reader::{Fragment, Next, Reader},
    sequence::Sequence,
    state::{CorpusState, Mark, StreamState},
    streams::Streams,
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

/// A sequence, or `None` at the end, and the position after it.
pub(crate) struct Made {
    pub(crate) sequence: Option<Sequence>,
    /// Sequences of all ranks.
    pub(crate) given: u64,
    /// The streams that have moved, by index.
    pub(crate) streams: Vec<(usize, StreamState)>,
}

/// The thread and its output queue.
pub(crate) struct Producer {
    items: Option<Receiver<Result<Made>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Producer {
    pub(crate) fn start(
        options: &Arc<CorpusOptions>,
        files: &Arc<Files>,
        streams: &Arc<Streams>,
        tokenizer: &Tokenizer,
        state: &CorpusState,
    ) -> Self {
        let (sender, items) = sync_channel(QUEUE);
        let stop = Arc::new(AtomicBool::new(false));
        let lanes = state.streams.iter().enumerate();
        let mut work = Work {
            lanes: lanes
                .map(|(stream, state)| Lane {
                    reader: Reader::new(options, files, streams, stream, state.mark.clone()),
                    assembler: Assembler::new(options, state.clone()),
                    ready: VecDeque::new(),
                    pause: None,
                    is_closed: false,
                    failure: None,
                })
                .collect(),
            options: Arc::clone(options),
            files: Arc::clone(files),
            streams: Arc::clone(streams),
            tokenizer: tokenizer.clone(),
            given: state.given,
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

    pub(crate) fn next(&mut self) -> Result<Made> {
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
    files: Arc<Files>,
    streams: Arc<Streams>,
    tokenizer: Tokenizer,
    /// By stream.
    lanes: Vec<Lane>,
    /// Sequences of all ranks that were handed out, in whole rounds.
    given: u64,
    /// Sequences of an incomplete round, in which not every rank has one, and their streams.
    round: Vec<(usize, Assembled)>,
    sender: SyncSender<Result<Made>>,
    stop: Arc<AtomicBool>,
}

/// The sequences of a stream.
struct Lane {
    reader: Reader,
    assembler: Assembler,
    /// Sequences that are not handed out yet.
    ready: VecDeque<Assembled>,
    /// The reason why reading paused, until the fragments before it are sequences.
    pause: Option<Pause>,
    /// True after the last fragment.
    is_closed: bool,
    /// The error that follows the ready sequences.
    failure: Option<Error>,
}

/// The reason why reading paused.
enum Pause {
    Epoch(Mark),
    End(Mark),
    Failed(Error),
}

impl Work {
    fn run(&mut self) -> Result<()> {
        while !self.stop.load(Ordering::Relaxed) {
            let read = self.read();
            let tokens = parallel::map(&read, |(_, fragment)| {
                let text = fragments::prepared(&fragment.text, self.options.clean_text);
                encode(&self.tokenizer, &text)
            })?;
            for ((stream, fragment), tokens) in read.into_iter().zip(tokens) {
                if let Some(lane) = self.lanes.get_mut(stream) {
                    let mut made = Vec::new();
                    lane.assembler.add(&tokens, fragment.after, &mut made);
                    lane.ready.extend(made);
                }
            }
            for stream in 0..self.lanes.len() {
                self.pass_pause(stream)?;
            }
            if !self.hand_out()? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The stream of the sequence `ahead` of the next one of this thread. A rank with files of its
    /// own makes only its own sequences.
    fn stream(&self, ahead: usize) -> usize {
        let number = if self.streams.is_sharded() {
            self.given + (self.options.rank + ahead * self.options.world) as u64
        } else {
            self.given + (self.round.len() + ahead) as u64
        };
        self.streams.of_sequence(number)
    }

    /// Reads fragments of the streams that give the next sequences, one per missing sequence.
    fn read(&mut self) -> Vec<(usize, Fragment)> {
        let mut read = Vec::new();
        let mut bytes = 0;
        let mut expected = BTreeMap::<usize, usize>::new();
        for ahead in 0..PIECES {
            let stream = self.stream(ahead);
            let Some(lane) = self.lanes.get_mut(stream) else {
                break;
            };
            let left = expected.entry(stream).or_insert(lane.ready.len());
            if *left > 0 {
                *left -= 1;
                continue;
            }
            if lane.is_closed || lane.pause.is_some() {
                break;
            }
            match lane.reader.next() {
                Ok(Next::Fragment(fragment)) => {
                    bytes += fragment.text.len();
                    read.push((stream, fragment));
                }
                Ok(Next::Epoch(mark)) => lane.pause = Some(Pause::Epoch(mark)),
                Ok(Next::End(mark)) => lane.pause = Some(Pause::End(mark)),
                Err(error) => lane.pause = Some(Pause::Failed(error)),
            }
            if bytes >= BYTES {
                break;
            }
        }
        read
    }

    /// Ends the pause of a stream, whose fragments before it are sequences now.
    fn pass_pause(&mut self, stream: usize) -> Result<()> {
        let Some(lane) = self.lanes.get_mut(stream) else {
            return Ok(());
        };
        match lane.pause.take() {
            None => {}
            Some(Pause::Epoch(mark)) => {
                lane.assembler.read(&mark);
                self.check_kept(stream)?;
            }
            Some(Pause::Failed(error)) => {
                lane.is_closed = true;
                lane.failure = Some(error);
            }
            Some(Pause::End(mark)) => {
                lane.assembler.end(mark);
                lane.is_closed = true;
                let mut made = Vec::new();
                lane.assembler.flush(&mut made);
                lane.ready.extend(made);
                self.check_kept(stream)?;
            }
        }
        Ok(())
    }

    /// Puts this rank's share of the ready sequences into the queue; false if the corpus has ended
    /// or there is no receiver.
    fn hand_out(&mut self) -> Result<bool> {
        let world = self.options.world;
        loop {
            let stream = self.stream(0);
            let Some(lane) = self.lanes.get_mut(stream) else {
                return Ok(false);
            };
            let Some(next) = lane.ready.pop_front() else {
                if !lane.is_closed {
                    return Ok(true);
                }
                if let Some(error) = lane.failure.take() {
                    return Err(error);
                }
                self.end(stream);
                return Ok(false);
            };
            self.round.push((stream, next));
            if !self.streams.is_sharded() && self.round.len() < world {
                continue;
            }
            self.given += world as u64;
            let round = mem::take(&mut self.round);
            let rank = if self.streams.is_sharded() {
                0
            } else {
                self.options.rank
            };
            let mut own = None;
            let mut streams = Vec::new();
            for (place, (stream, Assembled { sequence, state })) in round.into_iter().enumerate() {
                if place == rank {
                    own = Some(sequence);
                }
                moved(&mut streams, stream, state);
            }
            let made = Made {
                sequence: own,
                given: self.given,
                streams,
            };
            if made.sequence.is_some() && self.sender.send(Ok(made)).is_err() {
                return Ok(false);
            }
        }
    }

    /// Sends the end of the corpus, where `stream` has no further sequence.
    fn end(&mut self, stream: usize) {
        let left_over = self.round.len() as u64;
        let mut streams = Vec::new();
        for (stream, Assembled { state, .. }) in mem::take(&mut self.round) {
            moved(&mut streams, stream, state);
        }
        if let Some(lane) = self.lanes.get_mut(stream) {
            lane.assembler.made().left_over += left_over;
            moved(&mut streams, stream, lane.assembler.state().clone());
        }
        let _ = self.sender.send(Ok(Made {
            sequence: None,
            given: self.given,
            streams,
        }));
    }

    /// Fails if an epoch of a stream has no sequence: an unlimited corpus would be read forever.
    fn check_kept(&self, stream: usize) -> Result<()> {
        let Some(lane) = self.lanes.get(stream) else {
            return Ok(());
        };
        let StreamState { read, made, .. } = lane.assembler.state();
        if made.kept > 0 {
            return Ok(());
        }
        let own = self.streams.all().get(stream);
        let own = own
            .map(|stream| stream.files.as_slice())
            .unwrap_or_default();
        let first = own.first().and_then(|&file| self.files.files.get(file));
        let path = first.map(|file| file.path.clone()).unwrap_or_default();
        let corrupt: u64 = read.corrupt.iter().map(|file| file.count).sum();
        let problem = format!(
            "no document is left of {} files: {} documents gave {} fragments, of which {} have fewer \
             than {} characters and {} fewer than {} tokens; {corrupt} rows or files could not be \
             read",
            own.len(),
            read.documents,
            read.fragments,
            read.dropped_by_characters,
            self.options.min_characters,
            made.dropped_by_tokens,
            self.options.min_tokens,
        );
        Err(Error::data(path, None, problem))
    }
}

/// Adds the latest state of a stream.
fn moved(streams: &mut Vec<(usize, StreamState)>, stream: usize, state: StreamState) {
    match streams.iter_mut().find(|(known, _)| *known == stream) {
        Some((_, known)) => *known = state,
        None => streams.push((stream, state)),
    }
}

/// BOS, the text, EOS.
fn encode(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>> {
    let text = tokenizer.encode(text)?;
    let mut tokens = Vec::with_capacity(text.len() + 2);
    tokens.push(tokenizer.bos_id());
    tokens.extend(text);
    tokens.push(tokenizer.eos_id());
    Ok(tokens)
}
