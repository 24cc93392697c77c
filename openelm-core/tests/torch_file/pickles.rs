//! Pickles that would execute code, exhaust memory or the stack, or end early.

use std::time::{Duration, Instant};

use super::{
    assert_refused,
    opcodes::{LEGACY_HEAD, global, storage, tensor, text},
    read_all, refusal,
    zip::{saved, saved_pickle},
};
use openelm_testing::TempDir;

#[test]
fn reads_a_small_file() {
    read_all(&saved(&tensor(&[2, 2], &[2, 1], 0))).unwrap();
    // Python 2: an OrderedDict from a list of pairs, short strings.
    let pair = [b"](U\x01w", &tensor(&[4], &[1], 0)[..], b"e"].concat();
    let ordered = [
        &b"\x80\x02"[..],
        &global("collections", "OrderedDict"),
        b"](",
        &pair,
        b"e\x85R.",
    ];
    read_all(&saved_pickle(&ordered.concat())).unwrap();
}

#[test]
fn never_executes_calls() {
    let folder = TempDir::new();
    let marker = folder.join("ran");
    let command = text(&format!("touch {}", marker.display()));
    let path = |module: &str, name: &str| [text(module), text(name), vec![0x93]].concat();
    let tensor = tensor(&[4], &[1], 0);
    let mut refused = Vec::new();
    for (module, name) in [
        ("posix", "system"),
        ("os", "system"),
        ("nt", "system"),
        ("subprocess", "Popen"),
        ("builtins", "eval"),
        ("__builtin__", "exec"),
        ("builtins", "getattr"),
        ("sys", "exit"),
        ("runpy", "_run_code"),
        ("collections", "namedtuple"),
    ] {
        let because = format!("`{module}.{name}`");
        for named in [global(module, name), path(module, name)] {
            // REDUCE, NEWOBJ, NEWOBJ_EX, BUILD
            for call in [&b"\x85R"[..], b"\x85\x81", b"\x85}\x92", b"\x85R}b"] {
                refused.push(([&named, &command, call].concat(), because.clone()));
            }
        }
    }
    // INST, OBJ, EXT1, EXT2, EXT4, PERSID, and the text forms of protocol 0
    let inst = [b"(", &command[..], b"iposix\nsystem\n"].concat();
    let others = [
        &inst[..],
        b"(cposix\nsystem\no",
        b"\x82\x01",
        b"\x83\x01\0",
        b"\x84\x01\0\0\0",
        b"Pposix\n",
        b"I1\n",
        b"S'x'\n",
        b"\x97",
        b"1",
        b"(0",
        b"N2",
    ];
    for other in others {
        refused.push((other.to_vec(), String::new()));
    }
    // Known functions are called with their own argument types only.
    for (module, name, arguments) in [
        ("torch", "FloatStorage", &b")"[..]),
        ("torch", "Size", b")"),
        ("torch", "Size", b"N\x85"),
        ("collections", "OrderedDict", b"N\x85"),
        ("collections", "OrderedDict", b"]N\x86"),
        ("collections", "OrderedDict", b"]Na\x85"),
        ("torch._utils", "_rebuild_tensor_v2", b")"),
        ("torch._utils", "_rebuild_tensor_v2", b"(NNNNt"),
        ("torch._utils", "_rebuild_parameter", b")"),
        ("torch._utils", "_rebuild_parameter", b"NNN\x87"),
        ("torch._utils", "_rebuild_tensor_v2", b"N"),
    ] {
        let call = [&global(module, name), arguments, b"R"].concat();
        refused.push((call, "at byte".into()));
    }
    for (payload, because) in &refused {
        assert_refused(&saved(payload), because);
        // Neither beside the weights, nor in a tensor, nor in the legacy format.
        let (model, other) = (text("model_state_dict"), text("optim_state_dict"));
        let weights = [b"}", &text("weight")[..], &tensor, b"s"].concat();
        let training = [&b"\x80\x02}("[..], &model, &weights, &other, payload, b"u."];
        assert_refused(&saved_pickle(&training.concat()), because);
        let legacy = [LEGACY_HEAD, b"\x80\x02", payload, b".\x80\x02]."].concat();
        assert_refused(&legacy, because);
        refusal(&[b"\x80\x02", &payload[..], b"."].concat());
    }
    assert!(!marker.exists());
}

#[test]
fn unknown_classes_are_allowed_beside_weights_only() {
    for class in [
        global("corenet.options.opts", "Namespace"),
        global("torch.optim.adamw", "AdamW"),
        [text("numpy"), text("dtype"), vec![0x93]].concat(),
    ] {
        // NEWOBJ, BUILD with attributes, items set and appended
        let object = &[&class, &b")\x81}bN\x88s\x88a"[..]].concat();
        let weights = [b"}", &text("weight")[..], &tensor(&[4], &[1], 0), b"s"].concat();
        let (model, other) = (text("model_state_dict"), text("opts"));
        let training = [&b"\x80\x02}("[..], &model, &weights, &other, object, b"u."];
        read_all(&saved_pickle(&training.concat())).unwrap();

        assert_refused(&saved(object), "`weight` is `");
        let whole = [&b"\x80\x02"[..], object, b"."].concat();
        assert_refused(&saved_pickle(&whole), "expected a state dict, found `");
    }
    let quantized = [&global("torch._utils", "_rebuild_qtensor"), &b")R"[..]].concat();
    assert_refused(
        &saved(&quantized),
        "`weight` is `torch._utils._rebuild_qtensor`; expected a tensor",
    );
}

#[test]
fn rejects_decompression_bombs() {
    let started = Instant::now();
    // Depth: nested tuples and nested lists.
    assert_refused(
        &saved(&[&b"N"[..], &b"\x85".repeat(500_000)].concat()),
        "a tuple",
    );
    let nested = [b"]".repeat(400_000), b"a".repeat(399_999)].concat();
    assert_refused(&saved(&nested), "a list");
    // Cycles: a list in itself, a dict that is its own state dict.
    assert_refused(&saved(b"]q\x01h\x01ah\x01a"), "a list");
    let own = [b"\x80\x02}q\x01", &text("model_state_dict")[..], b"h\x01s."].concat();
    assert_refused(&saved_pickle(&own), "a dict");
    // Width: ten times the previous tuple, sixty times.
    let mut laughs = b"Nq\0".to_vec();
    for level in 0..60 {
        laughs.extend([&b"("[..], &[b'h', level].repeat(10), b"tq", &[level + 1]].concat());
    }
    let levels = [&b"("[..], &laughs, b"t"].concat();
    assert_refused(&saved(&levels), "a tuple");
    // A list of 100,000 pairs converted to a dict again and again.
    let pairs = [
        &b"NN\x86q\0]q\x01("[..],
        &b"h\0".repeat(100_000),
        b"e",
        &[&global("collections", "OrderedDict")[..], b"h\x01\x85R"]
            .concat()
            .repeat(1_000),
    ];
    assert_refused(&saved(&pairs.concat()), "steps");
    // Length: opcodes, marks, entries.
    assert_refused(&saved(&b"N".repeat(2_000_000)), "steps");
    assert_refused(&saved(&b"(".repeat(2_000_000)), "steps");
    assert_refused(&saved(&vec![b'N'; (16 << 20) + 1]), "too long");
    let legacy = [LEGACY_HEAD, b"\x80\x02", &b"}0".repeat(9 << 20)].concat();
    refusal(&legacy);
    assert!(
        started.elapsed() < Duration::from_secs(60),
        "{:?}",
        started.elapsed()
    );
}

#[test]
fn rejects_lengths_beyond_the_file() {
    let max = u64::MAX.to_le_bytes();
    for (opcode, width) in [
        (b'U', 1),
        (b'C', 1),
        (0x8a, 1),
        (0x8c, 1),
        (b'T', 4),
        (b'X', 4),
        (b'B', 4),
        (0x8b, 4),
        (0x8d, 8),
        (0x8e, 8),
        (0x96, 8),
    ] {
        assert_refused(
            &saved(&[&[opcode], &max[..width]].concat()),
            "exceeds the remaining",
        );
        let half = (1_u64 << (8 * width - 1)).to_le_bytes();
        assert_refused(
            &saved(&[&[opcode], &half[..width]].concat()),
            "exceeds the remaining",
        );
    }
    // Arbitrarily long integers are not sizes; memo keys do not allocate the keys below them.
    let wide = [&b"\x8b\xe8\x03\0\0"[..], &[0xff; 1000]].concat();
    let storage = storage("FloatStorage", "0", &wide);
    assert_refused(&saved(&storage), "persistent id");
    assert_refused(&saved(b"Nr\xff\xff\xff\xff"), "`weight` is None");
    assert_refused(&saved(b"j\xff\xff\xff\xff"), "memo 4294967295");
}

#[test]
fn limits_stack_depth() {
    for opcodes in [
        &b"."[..],
        b"R",
        b"b",
        b"Q",
        b"a",
        b"e",
        b"s",
        b"u",
        b"t",
        b"\x85",
        b"\x86",
        b"\x87",
        b"\x81",
        b"\x92",
        b"\x93",
        b"\x90",
        b"\x91",
        b"\x94",
        b"q\0",
        b"r\0\0\0\0",
        b"h\0",
        b"N(\x85",
        b"NN(R",
        b"}N(Ns",
        b"}(Nu",
        b"Na",
        b"(Ne",
        b"N(NNu",
        b"N(N.",
        b"NN.",
        b"(.",
        b"N}b",
        b"NQ",
        b")Q",
    ] {
        let pickle = [b"\x80\x02", opcodes, b"."].concat();
        assert_refused(&saved_pickle(&pickle), "of the pickle: ");
    }
    for protocol in [0, 1, 6, 255] {
        assert_refused(&saved_pickle(&[0x80, protocol, b'N', b'.']), "protocol");
    }
    for (module, name) in [
        ("a".repeat(300), "b".into()),
        ("os\0".into(), "\x1b[0m".into()),
    ] {
        let name: String = name;
        refusal(&saved(&global(&module, &name)));
    }
    refusal(&saved(b"cposix"));
    refusal(&saved(b"c\xff\xff\nsystem\n"));
}
