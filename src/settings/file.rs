//! The configuration file: TOML, a key for each setting.

use std::path::Path;

use bson::Bson;

use super::{Origin, Setting, Value, table};
use crate::error::{Error, Result};

/// Settings with the values that a place gives them.
pub type Values = Vec<(&'static Setting, Value)>;

/// Reads a configuration.
///
/// # Errors
/// [`Error::Usage`] for what is no TOML, a key that is unknown, with the nearest that is not, and a value that its setting
/// does not take.
pub fn read(path: &Path, text: &str) -> Result<Values> {
    let bad = |why: &str| Error::Usage(format!("{} is not a configuration: {why}", path.display()));
    let table: toml::Table = toml::from_str(text).map_err(|e| bad(e.message()))?;
    let mut values = Values::new();
    for (key, given) in &table {
        let setting = table::ALL.iter().find(|s| s.is_in_file() && s.key() == *key);
        let setting = setting.ok_or_else(|| bad(&unknown(key)))?;
        let place = Origin::File.place(setting, Some(path));
        if let Some(value) = setting.typed(&bson(given), &place)? {
            values.push((setting, value));
        }
    }
    Ok(values)
}

/// What is said of a key that no setting has.
fn unknown(key: &str) -> String {
    let near = nearest(key, table::ALL.iter().filter(|s| s.is_in_file()).map(Setting::key));
    // It may be anything, a connection string too.
    let is_word =
        key.len() <= 64 && key.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
    let key = if is_word { format!("unknown key {key}") } else { "unknown key".to_owned() };
    match near {
        Some(near) if is_word => format!("{key}; did you mean {near}?"),
        _ => format!("{key}; aviary config show -o wide lists the keys"),
    }
}

/// What a word that is unknown was probably meant to be.
#[must_use]
pub fn nearest(word: &str, known: impl IntoIterator<Item = String>) -> Option<String> {
    /// A word of which more is different was meant to be another one.
    const PART: usize = 3;
    let rated = known.into_iter().map(|known| (distance(word, &known), known));
    let (apart, near) = rated.min_by_key(|(apart, _)| *apart)?;
    (apart <= word.len().div_ceil(PART)).then_some(near)
}

/// Letters to be added, removed or changed to make one word of another.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (n, x) in a.chars().enumerate() {
        let mut left = n + 1;
        let mut corner = n;
        let mut next = vec![left];
        for (y, above) in b.chars().zip(row.iter().skip(1)) {
            left = (corner + usize::from(x != y)).min(left + 1).min(above + 1);
            corner = *above;
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

fn bson(value: &toml::Value) -> Bson {
    match value {
        toml::Value::String(text) => Bson::String(text.clone()),
        toml::Value::Integer(n) => Bson::Int64(*n),
        toml::Value::Float(n) => Bson::Double(*n),
        toml::Value::Boolean(on) => Bson::Boolean(*on),
        toml::Value::Datetime(at) => Bson::String(at.to_string()),
        toml::Value::Array(each) => Bson::Array(each.iter().map(bson).collect()),
        toml::Value::Table(_) => Bson::Document(bson::Document::new()),
    }
}
