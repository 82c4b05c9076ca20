//! What makes a version, what is kept of it, and when its code goes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    time::Duration,
};

use bus::log::version::{KeptVersion, NewVersion};

use super::*;

fn config(code: &Path) -> FunctionConfig {
    FunctionConfig {
        runtime: RuntimeKind::Python,
        pin: None,
        code: code.to_owned(),
        handler: "app.handler".into(),
        env: BTreeMap::new(),
        timeout: Duration::from_secs(1),
        memory: 256,
        processes: 1024,
        cpu: None,
        ephemeral_storage: EPHEMERAL_STORAGE,
        concurrency: 1,
        slots: 1,
        warm: 0,
        keep_alive: Duration::from_secs(1).into(),
        retry: bus::retry::RetryPolicy::default(),
        chain: bus::catalog::Chain::default(),
        isolation: Isolation::Process,
        network: true,
        folders: Folders::default(),
        freeze: true,
        hosts: Vec::new(),
        zygote: true,
    }
}

#[test]
fn a_version_is_its_content_and_what_instances_are_started_with() {
    let temp = tempfile::tempdir().unwrap();
    let (code, data) = (temp.path().join("code"), temp.path().join("code/.fnbus"));
    fs::create_dir_all(code.join("lib/__pycache__")).unwrap();
    fs::write(code.join("app.py"), "one").unwrap();
    fs::write(code.join("lib/a.py"), "a").unwrap();
    let store = Store::new(&data);
    let first = store.snapshot(&config(&code)).unwrap();
    assert_eq!(fs::read(first.code.join("lib/a.py")).unwrap(), b"a");

    fs::write(code.join("lib/__pycache__/a.pyc"), "x").unwrap();
    assert_eq!(store.snapshot(&config(&code)).unwrap().id, first.id, "what is no code makes no version");

    let other = FunctionConfig { memory: 512, ..config(&code) };
    let bigger = store.snapshot(&other).unwrap();
    assert_ne!(bigger.id, first.id);
    assert_eq!(bigger.code, first.code);
    assert!(!starts_alike(&other, &config(&code)));
    assert!(starts_alike(&FunctionConfig { warm: 3, ..config(&code) }, &config(&code)));

    fs::write(code.join("app.py"), "two").unwrap();
    let edited = store.snapshot(&config(&code)).unwrap();
    assert_ne!(edited.code, first.code);
    assert_eq!(fs::read(first.code.join("app.py")).unwrap(), b"one", "an edit changed what runs");
    fs::set_permissions(code.join("app.py"), fs::Permissions::from_mode(0o755)).unwrap();
    assert_ne!(store.snapshot(&config(&code)).unwrap().id, edited.id);
}

#[test]
fn folders_that_nobody_uses_and_the_log_does_not_keep_are_collected() {
    let temp = tempfile::tempdir().unwrap();
    let store = Store::new(&temp.path().join("data"));
    let snapshot = |text| {
        fs::write(temp.path().join("app.py"), text).unwrap();
        store.snapshot(&config(temp.path())).unwrap()
    };
    let (old, kept, used) = (snapshot("one"), snapshot("two"), snapshot("three"));
    let beside = [&old, &kept, &used].map(|version| version.beside("22.20.0"));
    let other = kept.code.with_file_name(format!("{}-other-22.20.0", kept.to_keep().code));
    for folder in beside.iter().chain([&other]) {
        fs::create_dir_all(folder.join("more")).unwrap();
    }
    let (gone, known) = (old.code.clone(), kept.to_keep());
    drop((old, kept));
    store.collect(&BTreeSet::from([version::beside(&known.code, &known.id), known.code]));
    assert!(!gone.exists() && used.code.is_dir());
    assert_eq!(beside.map(|folder| folder.exists()), [false, true, true]);
    assert!(!other.exists(), "of a version that has the same code");
    assert_eq!(fs::read_dir(temp.path().join("data/versions")).unwrap().count(), 4);
}

#[test]
fn a_version_that_is_kept_starts_as_it_did_with_its_variables() {
    let temp = tempfile::tempdir().unwrap();
    fs::write(temp.path().join("app.py"), "one").unwrap();
    let store = Store::new(&temp.path().join("data"));
    let secret = EnvValue::SecretEnv("PRICE_TOKEN".into());
    let env = BTreeMap::from([("A".to_owned(), EnvValue::Plain("b".into())), ("TOKEN".to_owned(), secret)]);
    let snapshot = store.snapshot(&FunctionConfig { env, memory: 64, ..config(temp.path()) }).unwrap();
    let made = Version { number: Some(1), ..snapshot };
    let NewVersion { id, code, config, bytes } = made.to_keep();
    let kept = KeptVersion { number: 1, id, code, config, bytes, deployed: chrono::Utc::now(), note: None };
    let back = store.restore(&kept).unwrap();
    assert_eq!(format!("{back:?}"), format!("{made:?}"));
    assert_eq!((back.env, bytes), (made.env, 3));
    fs::remove_dir_all(&made.code).unwrap();
    assert!(store.restore(&kept).is_none());
}

#[test]
fn a_missing_folder_is_said_to_be_missing() {
    let temp = tempfile::tempdir().unwrap();
    let error = Store::new(temp.path()).snapshot(&config(&temp.path().join("no"))).unwrap_err();
    assert!(error.to_string().contains("there is no"), "{error}");
}
