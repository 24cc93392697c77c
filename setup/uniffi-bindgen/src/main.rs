//! `uniffi-bindgen LIBRARY FOLDER --swift-sources | --headers | --modulemap`: UniFFI's generator of
//! Swift. A crate of its own, so that the library that apps link carries no command line.

fn main() {
    uniffi::uniffi_bindgen_swift();
}
