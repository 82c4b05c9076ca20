//! Counts the words of a text: the event on stdin, the result on stdout, the log on stderr.

use std::io::{self, Read};

fn main() -> io::Result<()> {
    let mut text = String::new();
    io::stdin().read_to_string(&mut text)?;
    eprintln!("{} bytes came", text.len());
    println!("{{\"words\":{},\"lines\":{}}}", text.split_whitespace().count(), text.lines().count());
    Ok(())
}
