//! Kills at random moments. Repeating the command completes its work, as if it had not been killed.

use std::{
    collections::BTreeMap,
    env, fs,
    path::Path,
    process::Stdio,
    thread::sleep,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use openelm_testing::{Random, run, success};

use crate::commands::{Kind, Scratch, assert_same, wait};

#[test]
fn killed_finetuning_continues() {
    survives(Kind::Finetune);
}

#[test]
fn killed_pretraining_continues() {
    survives(Kind::Pretrain);
}

#[test]
fn killed_pretraining_in_two_processes_continues() {
    survives(Kind::PretrainTwo);
}

#[test]
fn killed_conversion_can_be_repeated() {
    survives(Kind::Convert);
}

/// The number of kills, and the seed of their moments.
#[allow(clippy::print_stdout, reason = "a failed test shows the seed")]
fn plan(kind: Kind) -> (usize, Random) {
    let number = |name: &str| env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = number("OPENELM_KILL_SEED").unwrap_or(now.subsec_nanos().into());
    println!("{kind:?}: OPENELM_KILL_SEED={seed}");
    let kills = number("OPENELM_KILLS").unwrap_or(2);
    (kills as usize, Random(seed | 1))
}

fn survives(kind: Kind) {
    let scratch = Scratch::new();
    let started = Instant::now();
    success(scratch.command(kind, "whole", &["--quiet"]));
    let duration = started.elapsed();
    let expected = scratch.files("whole");
    let names = scratch.0.names();
    let (kills, mut random) = plan(kind);
    let mut killed = 0;
    while killed < kills {
        // From the start to the end, including the time before the first save.
        let moment = duration.mul_f64(random.below(1000) as f64 / 1000.0);
        let mut command = scratch.command(kind, "killed", &["--quiet"]);
        let mut child = command.stderr(Stdio::null()).spawn().unwrap();
        let ranks = || children(child.id());
        sleep(moment);
        let ranks = if kind == Kind::PretrainTwo {
            ranks()
        } else {
            Vec::new()
        };
        child.kill().unwrap();
        let code = child.wait().unwrap().code();
        // They end after their starting process.
        wait(|| ranks.iter().all(|id| !Path::new("/proc").join(id).exists()));
        match code {
            None => killed += 1,
            Some(code) => assert_eq!(code, 0, "{kind:?}"),
        }
        if scratch.path("killed").exists() {
            assert_complete_folders(&scratch.files("killed"));
        }
        // The last, or one that ended before its kill.
        if killed == kills || code.is_some() {
            let what = format!("{kind:?}, killed after {moment:?} of {duration:?}");
            let outcome = run(scratch.command(kind, "killed", &["--quiet"]));
            assert_eq!(outcome.code, Some(0), "{what}: {outcome:?}");
            assert_same(&expected, &scratch.files("killed"), &what);
            fs::remove_dir_all(scratch.path("killed")).unwrap();
            assert_eq!(names, scratch.0.names(), "{what}");
        }
    }
}

/// Folders of models and adapters appear and vanish as a whole.
fn assert_complete_folders(files: &BTreeMap<String, Vec<u8>>) {
    let is_hidden = |name: &&String| name.split('/').any(|part| part.starts_with('.'));
    for folder in files
        .keys()
        .filter(|name| name.ends_with('/') && !is_hidden(name))
    {
        let configurations = ["config.json", "adapter_config.json"];
        let is_complete = configurations
            .iter()
            .any(|name| files.contains_key(&format!("{folder}{name}")));
        let is_first_best = folder == "best/";
        assert!(
            is_complete || is_first_best || folder == "checkpoints/",
            "{folder}: {:?}",
            files.keys()
        );
    }
}

/// The processes that the process `id` started; none where there is no `/proc`.
fn children(id: u32) -> Vec<String> {
    let list = fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
    let list = list.unwrap_or_default();
    list.split_whitespace().map(str::to_owned).collect()
}
