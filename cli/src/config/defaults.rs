//! A config file with every key at its default.
//!
//! What cannot stand there as it is (entries need a name) is a comment without a blank after the `#`; prose has one.

use std::fmt::Write;

use bus::config::{Key, Section, Shape};

use super::keys;

/// TOML text.
pub(crate) fn defaults() -> String {
    let mut text = "# Every key of fnbus.toml with its default.\n".to_owned();
    for key in &keys::FILE.keys {
        match &key.shape {
            Shape::Table(section) => print_section(&mut text, section, &format!("[{}]", key.name), ""),
            Shape::Map(of, shape) => {
                if let Shape::Table(section) = &**shape {
                    print_section(&mut text, section, &format!("[{}.{of}]", key.name), "#");
                }
            }
            _ => print_key(&mut text, key, "", ""),
        }
    }
    text
}

fn print_section(text: &mut String, section: &Section, header: &str, comment: &str) {
    _ = write!(text, "\n# {}\n{comment}{header}\n", section.doc);
    for key in &section.keys {
        print_key(text, key, "", comment);
    }
}

fn print_key(text: &mut String, key: &Key, prefix: &str, comment: &str) {
    if let Shape::Table(section) = &key.shape {
        for inner in &section.keys {
            print_key(text, inner, &format!("{prefix}{}.", key.name), comment);
        }
        return;
    }
    let name = format!("{prefix}{}", key.name);
    _ = match &key.default {
        Some(value) => write!(text, "# {}\n{comment}{name} = {value}\n", key.doc),
        None if key.required => write!(text, "# {}\n# {name} = … (required)\n", key.doc),
        None => write!(text, "# {}\n# {name} = … (nothing unless set)\n", key.doc),
    };
}
