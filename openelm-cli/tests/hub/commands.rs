//! Commands with names of repositories.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::Stdio,
};

use openelm_testing::{TempDir, fails, repository, run, tales, works};

use crate::server::{Contents, Hub};

const MODEL: [&str; 2] = ["config.json", "model.safetensors"];
const TOKENIZER: [&str; 2] = ["tokenizer.json", "tokenizer_config.json"];

fn with_tales() -> Hub {
    let hub = Hub::start();
    hub.add_folder(
        "models/local/tales",
        &tales(),
        &[&MODEL[..], &TOKENIZER].concat(),
    );
    hub.add_folder("models/local/bare", &tales(), &MODEL);
    hub
}

fn generate<'a>(model: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [
        &["generate", "-p", "Once", "-n", "4", "-q", "--model", model],
        more,
    ]
    .concat()
}

#[test]
fn generates_with_a_model_by_name() {
    let hub = with_tales();
    let tales = tales();
    let local = works(hub.tool(&generate(tales.to_str().unwrap(), &[])));
    assert_eq!(works(hub.tool(&generate("local/tales", &[]))), local);
    let separate = generate("local/bare", &["--tokenizer", "local/tales"]);
    assert_eq!(works(hub.tool(&separate)), local);
    let draft = generate("local/tales", &["--draft-model", "local/bare"]);
    assert_eq!(works(hub.tool(&draft)), local);
    // Only the files that are needed.
    let tokenizer = hub.snapshot("models--local--tales");
    assert!(tokenizer.join("model.safetensors").exists());
    let shown = works(hub.tool(&["info", "local/tales", "--json"]));
    assert!(shown.contains("\"parameters\":4788224") || shown.contains("\"bits_per_weight\""));
}

#[test]
fn a_model_without_a_tokenizer_names_repositories_with_it() {
    let hub = with_tales();
    let parts = [
        "no tokenizer.json or tokenizer.model here",
        "`--tokenizer mlx-community/OpenELM-270M-Instruct` (a copy, not gated)",
        "`--tokenizer meta-llama/Llama-2-7b-hf` (gated: accept its licence",
    ];
    fails(hub.tool(&generate("local/bare", &[])), 1, &parts);
    // `auto` tries the copies in their order.
    let auto = generate("local/bare", &["--tokenizer", "auto"]);
    fails(
        hub.tool(&auto),
        2,
        &["--tokenizer auto: no copy was found", "no such repository"],
    );
    hub.add_folder("models/mlx-community/OpenELM-3B", &tales(), &TOKENIZER);
    let auto: Vec<&str> = auto.into_iter().filter(|arg| *arg != "-q").collect();
    let outcome = run(hub.tool(&auto));
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let note = "the tokenizer is a copy of LLaMA's, from mlx-community/OpenELM-3B";
    assert!(
        outcome.stderr.lines().any(|line| line == note),
        "{outcome:?}"
    );
    // A model with a tokenizer keeps its own.
    let own = works(hub.tool(&generate("local/tales", &["--tokenizer", "auto"])));
    assert_eq!(own, outcome.stdout);
}

#[test]
fn an_existing_path_comes_first() {
    let hub = with_tales();
    let folder = TempDir::new();
    let local = folder.join("local/tales");
    fs::create_dir_all(&local).unwrap();
    fs::copy(tales().join("config.json"), local.join("config.json")).unwrap();
    let mut command = hub.tool(&["info", "local/tales"]);
    works({
        command.current_dir(&*folder);
        command
    });
    assert_eq!(hub.requests(|_| true).len(), 0);
    // A folder with the owner's name hides no repository.
    let mut command = hub.tool(&["info", "local/bare"]);
    command.current_dir(&*folder);
    works(command);
    assert!(
        !hub.snapshot("models--local--bare")
            .join("model.safetensors")
            .exists()
    );
}

#[test]
fn tasks_download_their_data_sets() {
    let hub = with_tales();
    let rows = fs::read(repository("examples/evaluate/endings/test.jsonl")).unwrap();
    let files = ["main/test.jsonl", "other/test.jsonl"];
    let files = files.map(|name| (name, Contents::small(&rows)));
    hub.add("datasets/local/endings", files);
    let out = TempDir::new();
    let task = fs::read_to_string(repository("examples/evaluate/endings.yaml")).unwrap();
    let named = "dataset_path: local/endings\ndataset_name: main\n";
    let task = out.file("task.yaml", task.replace("dataset_path: endings\n", named));
    let evaluate = [
        "evaluate",
        "--model",
        "local/tales",
        "-q",
        "--limit",
        "2",
        "--task",
    ];
    let shown = works(hub.tool(&[&evaluate[..], &[&task]].concat()));
    assert!(shown.contains("acc_norm"), "{shown}");
    let snapshot = hub.snapshot("datasets--local--endings");
    assert!(snapshot.join("main/test.jsonl").exists() && !snapshot.join("other").exists());
    let local = repository("examples/evaluate/endings.yaml");
    fails(
        hub.tool(&[&evaluate[..], &[local.to_str().unwrap()]].concat()),
        2,
        &["--data: expected the folder of the data set `endings`"],
    );
}

#[test]
fn trains_converts_and_evaluates_by_name() {
    let hub = with_tales();
    let rows = "{\"text\": \"Once upon a time there was a fox.\"}\n".repeat(8);
    hub.add(
        "datasets/local/data",
        [("train.jsonl", Contents::small(&rows))],
    );
    let out = TempDir::new();
    let adapter = out.at("adapter");
    let settings = out.file(
        "lora.toml",
        "data = \"local/data\"\niters = 1\nbatch-size = 1\n",
    );
    let model = ["--model", "local/bare", "--tokenizer", "local/tales"];
    works(
        hub.tool(
            &[
                &[
                    "finetune",
                    "--config",
                    &settings,
                    "-q",
                    "--adapter-path",
                    &adapter,
                ][..],
                &model,
            ]
            .concat(),
        ),
    );
    let files = ["adapter_config.json", "adapters.safetensors"];
    hub.add_folder("models/local/adapter", Path::new(&adapter), &files);
    works(hub.tool(&generate(
        "local/tales",
        &["--adapter", "local/adapter=0.5"],
    )));
    let selected = ["--adapter", "tale=local/adapter=2"];
    let serve = [
        "serve",
        "--model",
        "local/tales",
        "--port",
        "0",
        "--adapter-path",
        "local/adapter",
    ];
    let mut command = hub.tool(&[&serve[..], &selected].concat());
    let mut server = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(server.stderr.take().unwrap())
        .lines()
        .map(Result::unwrap);
    let served = lines.find(|line| line.contains(" at http://") || line.starts_with("openelm: "));
    server.kill().unwrap();
    server.wait().unwrap();
    assert!(
        served
            .as_ref()
            .is_some_and(|line| line.starts_with("serving local/tales at ")),
        "{served:?}"
    );
    let again = out.at("again");
    let start = ["--start-from", "local/adapter", "--adapter-path", &again];
    works(
        hub.tool(
            &[
                &["finetune", "--config", &settings, "-q"][..],
                &model,
                &start,
            ]
            .concat(),
        ),
    );
    let fused = out.at("fused");
    works(hub.tool(&[
        "fuse",
        "-m",
        "local/tales",
        "--adapter-path",
        "local/adapter",
        "--save-path",
        &fused,
        "-q",
    ]));
    let gguf = out.at("tales.gguf");
    let convert = [
        "convert",
        "local/bare",
        &gguf,
        "--quiet",
        "--tokenizer",
        "local/tales",
    ];
    works(hub.tool(&convert));
    let bytes = fs::read(&gguf).unwrap();
    hub.add(
        "models/local/gguf",
        [("a/tales.gguf", Contents::large(bytes))],
    );
    let back = out.at("back");
    works(hub.tool(&["convert", "local/gguf/a/tales.gguf", &back, "--quiet"]));
    fails(
        hub.tool(&["convert", "local/gguf", &back]),
        1,
        &["has no config.json", "a/tales.gguf"],
    );
    let perplexity = [
        "--perplexity",
        "local/data",
        "--against",
        "local/tales",
        "-q",
    ];
    let evaluated = works(hub.tool(&[&["evaluate"][..], &model, &perplexity].concat()));
    assert!(evaluated.contains("perplexity"), "{evaluated}");
    let as_json = ["--perplexity", "local/data", "--json", "-q"];
    let evaluated = works(hub.tool(&[&["evaluate"][..], &model, &as_json].concat()));
    assert!(
        evaluated.contains("\"model_name\":\"local/bare\""),
        "{evaluated}"
    );
    let trained = out.at("tokenizer");
    works(hub.tool(&[
        "tokenizer",
        "train",
        "--data",
        "local/data",
        "--vocab-size",
        "300",
        "--output",
        &trained,
    ]));
    let pretrained = out.at("pretrained");
    works(hub.tool(&[
        "pretrain",
        "--start-from",
        "local/bare",
        "--learning-rate",
        "1e-3",
        "--tokenizer",
        "local/tales",
        "--data",
        "local/data",
        "--valid",
        "local/data",
        "--iters",
        "1",
        "--batch-size",
        "1",
        "--max-seq-length",
        "8",
        "--output",
        &pretrained,
        "-q",
    ]));
}
