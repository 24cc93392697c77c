//! `uniffi-bindgen LIBRARY FOLDER --swift-sources | --headers | --modulemap`: UniFFI's Swift
//! generator. In its own crate, so that the library has no command-line dependencies.

fn main() {
    uniffi::uniffi_bindgen_swift();
}
