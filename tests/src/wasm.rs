//! WebAssembly that was built for the tests, from `tests/wasm`.

use std::{env, fs, path::PathBuf};

use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// A module of preview 1; none where nobody built them.
pub fn module(name: &str) -> Option<Vec<u8>> {
    let Some(folder) = env::var_os("FNBUS_WASM").map(PathBuf::from) else {
        assert!(env::var("CI").as_deref() != Ok("true"), "no modules: `make test` builds them");
        eprintln!("skipped: no modules of WebAssembly; `make test` builds them");
        return None;
    };
    Some(fs::read(folder.join(name).with_extension("wasm")).unwrap())
}

/// A command of preview 2, made from a module.
pub fn component(module: &[u8]) -> Vec<u8> {
    encode(module, WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER)
}

/// The component that answers HTTP; none as above.
pub fn http() -> Option<Vec<u8>> {
    let mut module = module("http")?;
    let mut resolve = Resolve::default();
    let package = resolve.push_str("http.wit", include_str!("../wasm/http.wit")).unwrap();
    let world = resolve.select_world(&[package], Some("handler")).unwrap();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    Some(encode(&module, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER))
}

fn encode(module: &[u8], adapter: &[u8]) -> Vec<u8> {
    let encoder = ComponentEncoder::default().module(module).unwrap();
    encoder.adapter(WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, adapter).unwrap().encode().unwrap()
}
