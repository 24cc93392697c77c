//! The Python names that a pickle can refer to.

use super::element::Element;

/// A name that the machine implements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Function {
    /// `collections.OrderedDict`: becomes a dict.
    OrderedDict,
    /// `torch._utils._rebuild_tensor` and its second version: a tensor in a storage.
    RebuildTensor,
    /// `torch._utils._rebuild_parameter`: returns its tensor.
    RebuildParameter,
    /// `torch.Size`: returns its tuple.
    Size,
    /// A storage class: the element type of a storage.
    Storage(Element),
}

/// The meaning of a name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Global {
    Known(Function),
    /// A name without meaning here: it and the objects made with it become opaque values.
    Inert,
    Refused,
}

/// Packages of the objects in a training checkpoint other than its weights: hyper-parameters,
/// optimizer and data types, numpy's scalars.
const INERT_PACKAGES: [&str; 3] = ["torch", "numpy", "corenet"];

/// Python's plain containers, and names that its older protocols use to write bytes.
const INERT: [(&str, &str); 11] = [
    ("_codecs", "encode"),
    ("builtins", "bytearray"),
    ("builtins", "complex"),
    ("builtins", "frozenset"),
    ("builtins", "set"),
    ("__builtin__", "bytearray"),
    ("__builtin__", "complex"),
    ("__builtin__", "frozenset"),
    ("__builtin__", "set"),
    ("collections", "Counter"),
    ("collections", "defaultdict"),
];

/// Looks a name up.
pub(super) fn lookup(module: &str, name: &str) -> Global {
    let known = match (module, name) {
        ("collections", "OrderedDict") => Some(Function::OrderedDict),
        ("torch", "Size") => Some(Function::Size),
        ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Some(Function::RebuildTensor),
        ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => {
            Some(Function::RebuildParameter)
        }
        ("torch" | "torch.cuda" | "torch.storage", _) => {
            Element::of_storage(name).map(Function::Storage)
        }
        _ => None,
    };
    if let Some(function) = known {
        return Global::Known(function);
    }
    let package = module.split('.').next().unwrap_or(module);
    if INERT_PACKAGES.contains(&package) || INERT.contains(&(module, name)) {
        return Global::Inert;
    }
    Global::Refused
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mlx::Dtype;

    #[test]
    fn globals_are_known_inert_or_rejected() {
        for (module, name, expected) in [
            (
                "torch",
                "BFloat16Storage",
                Global::Known(Function::Storage(Element::Weight(Dtype::Bfloat16))),
            ),
            (
                "torch.storage",
                "UntypedStorage",
                Global::Known(Function::Storage(Element::Other("U8", 1))),
            ),
            ("torch", "float32", Global::Inert),
            ("torch._utils", "_rebuild_qtensor", Global::Inert),
            ("numpy.core.multiarray", "scalar", Global::Inert),
            ("builtins", "set", Global::Inert),
            ("builtins", "eval", Global::Refused),
            ("__builtin__", "getattr", Global::Refused),
            ("posix", "system", Global::Refused),
            ("collections", "namedtuple", Global::Refused),
            ("torchvision.ops", "nms", Global::Refused),
            ("numpyx", "scalar", Global::Refused),
            ("", "", Global::Refused),
        ] {
            assert_eq!(lookup(module, name), expected, "{module}.{name}");
        }
    }
}
