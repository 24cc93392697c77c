//! `openelm chat`: a conversation at the terminal, or of lines on standard input.

mod command;
mod conversation_file;
mod input;
mod terminal_mode;

use openelm_core::{
    LanguageModel,
    chat::{Chat, ChatTemplate, Message, Role},
    generation::{EosToken, Event, FinishReason, GenerateOptions, Generation, seed_of_text},
};

use crate::{
    adapters::{AdapterArgs, set_adapter},
    choices::Template,
    error::Error,
    generate::prompt::template,
    given::Given,
    interrupt::Interrupt,
    model::ModelArgs,
    output,
    sampling::SamplingArgs,
};
use command::{COMMANDS, ChatCommand, Line};
use input::Input;

/// Arguments of `openelm chat`.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    given: Given,

    #[command(flatten)]
    model: ModelArgs,

    #[command(flatten)]
    adapters: AdapterArgs,

    /// System message: instructions for the conversation
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    system: Option<String>,

    /// Chat template [default: by the model's name and files, else plain]
    #[arg(long, value_name = "NAME")]
    chat_template: Option<Template>,

    /// Maximum number of tokens of an answer
    #[arg(long, short = 'n', default_value_t = GenerateOptions::default().max_tokens, value_name = "N")]
    max_tokens: usize,

    #[command(flatten)]
    sampling: SamplingArgs,

    /// End an answer before this string; may be repeated
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,

    /// Token that ends an answer as the end-of-sequence token does, by its id or piece; may be
    /// repeated
    #[arg(long, value_name = "TOKEN")]
    extra_eos_token: Vec<EosToken>,

    /// Prompt tokens per prefill step [default: 128 on a CPU, 512 on a GPU]
    #[arg(long, value_name = "N")]
    prefill_chunk: Option<usize>,

    /// No progress bar and no notes
    #[arg(long, short)]
    quiet: bool,
}

const EXAMPLES: &str = "Examples:
  openelm chat --model OpenELM-270M-Instruct
  openelm chat --model OpenELM-270M-Instruct --system 'Answer briefly.' --temp 0.7
  openelm chat --model OpenELM-270M --adapter adapters --chat-template instruction
  printf 'Hello\\nWho are you?\\n' | openelm chat --model OpenELM-270M-Instruct

/help lists the commands of a chat. Ctrl-C stops an answer, Ctrl-D ends the chat.";

/// Runs the command.
pub(crate) fn run(mut args: Args) -> Result<(), Error> {
    // Checked before the model loads, so that invalid options fail at once.
    let options = GenerateOptions {
        max_tokens: args.max_tokens,
        sampling: args.sampling.sampling(&args.given)?,
        stop: args.stop,
        extra_eos_tokens: args.extra_eos_token,
        prefill_chunk: args.prefill_chunk,
        ..GenerateOptions::default()
    };
    args.model.fetch(args.quiet)?;
    args.adapters.fetch(args.quiet)?;
    let template = template(args.chat_template, &args.model.model)?;
    let mut model = args.model.load(args.quiet)?;
    args.adapters.add_to(&mut model)?;
    check(&options, &model)?;
    let mut input = Input::open()?;
    let interrupt = Interrupt::default();
    if input.is_terminal() {
        // Ctrl-C never ends a conversation, also between two answers.
        interrupt.only_cancel();
        terminal_mode::restore_before_exit(&interrupt);
    }
    interrupt.listen()?;
    let mut session = Session {
        model,
        template,
        chat: Chat::new(template, Vec::new())?,
        options,
        answers: 0,
        interrupt,
        is_terminal: input.is_terminal(),
        quiet: args.quiet,
    };
    session.set_system(args.system)?;
    let name = Template::from(template);
    session.note(&format!(
        "chat template: {name}; /help lists the commands, Ctrl-D ends the chat"
    ));
    while let Some(line) = input.line()? {
        match session.take(&line) {
            Ok(true) => {}
            Ok(false) => break,
            // At a terminal the user can correct it.
            Err(error @ (Error::Output(_) | Error::Interrupted(_))) => return Err(error),
            Err(error) if session.is_terminal => output::note(&error.message(&command())),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Refuses options that do not fit the model, before the first message.
fn check(options: &GenerateOptions, model: &LanguageModel) -> Result<(), Error> {
    let tokenizer = model.tokenizer();
    let (prompt, options) = (vec![tokenizer.bos_id()], options.clone());
    Generation::new(model.model(), Some(tokenizer), prompt, options)?;
    Ok(())
}

/// The command, whose options an error names.
fn command() -> clap::Command {
    <Args as clap::Args>::augment_args(clap::Command::new("chat"))
}

struct Session {
    model: LanguageModel,
    template: ChatTemplate,
    chat: Chat,
    options: GenerateOptions,
    /// Number of answers that were started.
    answers: usize,
    interrupt: Interrupt,
    is_terminal: bool,
    quiet: bool,
}

impl Session {
    /// Answers a message or follows a command; false ends the chat.
    fn take(&mut self, line: &str) -> Result<bool, Error> {
        match Line::parse(line)? {
            Line::Blank => {}
            Line::Message(text) => self.answer(&text)?,
            Line::Command(command) => return self.follow(command),
        }
        Ok(true)
    }

    fn follow(&mut self, command: ChatCommand) -> Result<bool, Error> {
        match command {
            ChatCommand::System(text) => self.set_system(text)?,
            ChatCommand::Reset => {
                let mut messages = self.chat.messages().to_vec();
                messages.retain(|message| message.role == Role::System);
                self.chat = Chat::new(self.template, messages)?;
            }
            ChatCommand::Save(path) => {
                conversation_file::save(&path, self.chat.messages())?;
                self.note(&format!(
                    "{} messages in {}",
                    self.chat.messages().len(),
                    path.display()
                ));
            }
            ChatCommand::Load(path) => {
                let messages = conversation_file::load(&path)?;
                let chat = Chat::new(self.template, messages);
                self.chat = chat.map_err(|error| conversation_file::wrong(&path, error))?;
                self.note(&format!("{} messages", self.chat.messages().len()));
            }
            ChatCommand::Adapter(given) => {
                if let Some(given) = given {
                    set_adapter(self.model.model_mut(), &given, self.quiet)?;
                }
                self.note_adapters();
            }
            ChatCommand::Help => {
                for line in COMMANDS.lines() {
                    output::note(line);
                }
            }
            ChatCommand::Exit => return Ok(false),
        }
        Ok(true)
    }

    /// Replaces the system message; the turns stay.
    fn set_system(&mut self, text: Option<String>) -> Result<(), Error> {
        let turns = self.chat.messages().iter();
        let turns = turns
            .filter(|message| message.role != Role::System)
            .cloned();
        let system = text.filter(|text| !text.is_empty()).map(|content| Message {
            role: Role::System,
            content,
        });
        self.chat = Chat::new(self.template, system.into_iter().chain(turns).collect())?;
        Ok(())
    }

    /// Streams the answer to `question`. Ctrl-C ends it at a terminal, and its text stays in the
    /// conversation.
    fn answer(&mut self, question: &str) -> Result<(), Error> {
        let mut options = self.options.clone();
        let seed = options.sampling.seed;
        options.sampling.seed = seed.map(|seed| seed_of_text(seed, self.answers));
        self.answers += 1;
        let mut generation = self.chat.start(&self.model, question, options)?;
        self.interrupt.cancels(generation.cancel_handle());
        let mut end = None;
        for event in &mut generation {
            let shown = match event {
                Ok(Event::Token(token)) if !token.text.is_empty() => {
                    output::write_text(&token.text)
                }
                Ok(Event::Finished { reason, .. }) => {
                    end = Some(reason);
                    output::write(b"\n")
                }
                Ok(_) => Ok(()),
                Err(error) => {
                    drop(generation);
                    self.chat.withdraw();
                    self.interrupt.cancels_nothing();
                    // A line break ends the incomplete answer.
                    output::write(b"\n")?;
                    return Err(error.into());
                }
            };
            if let Err(error) = shown {
                self.chat.withdraw();
                return Err(error);
            }
        }
        let is_empty = generation.text().is_empty();
        self.chat.finish(generation);
        let stopped = self.interrupt.take_interrupt();
        if let Some(signal) = self.interrupt.signal() {
            return Err(signal.into());
        }
        if stopped && !self.is_terminal {
            return Err(crate::interrupt::Signal::Interrupt.into());
        }
        match end {
            _ if is_empty => self.note("no answer: the message is not part of the conversation"),
            Some(FinishReason::Length) => self.note("--max-tokens reached"),
            Some(FinishReason::Context) => self.note("context full"),
            Some(FinishReason::Cancelled) => self.note("interrupted"),
            _ => {}
        }
        Ok(())
    }

    fn note_adapters(&self) {
        let model = self.model.model();
        let active = model.active_adapters();
        for name in model.adapters() {
            let found = active.iter().find(|(other, _)| other == name);
            let strength = found.map_or(0.0, |(_, strength)| *strength);
            output::note(&format!("{name}={strength}"));
        }
        if model.adapters().is_empty() {
            output::note("no adapter; /adapter PATH=STRENGTH adds one");
        }
    }

    fn note(&self, text: &str) {
        if !self.quiet {
            output::note(&format!("[{text}]"));
        }
    }
}
