//! A case: documents, a command, and what is to be compared.

use bson::{Bson, Document, doc};

/// What is expected of a case.
#[derive(Debug, Clone)]
pub enum Expect {
    /// Both give the same documents.
    Same,
    /// Both refuse, and Aviary's error has these words.
    Fails(&'static str),
    /// Aviary does otherwise, for this reason, and just this.
    Differs(&'static str, Ours),
}

/// What Aviary does where it differs.
#[derive(Debug, Clone)]
pub enum Ours {
    /// It gives these documents.
    Gives(Vec<Document>),
    /// It refuses, with these words.
    Refuses(&'static str),
}

/// Where the results go.
#[derive(Debug, Clone, Copy)]
pub enum Out {
    /// `{inline: 1}`
    Inline,
    /// One of the modes, into a collection of the case's own.
    Into(&'static str),
    /// The same, into another database.
    Elsewhere(&'static str),
    /// Just a name.
    Named,
    /// The input itself, which is the case's own.
    Input(&'static str),
}

/// One case.
#[derive(Debug, Clone)]
pub struct Case {
    pub name: &'static str,
    /// The collection that is read.
    pub input: &'static str,
    /// The command without its name and output.
    pub command: Document,
    pub out: Out,
    /// What the target holds before.
    pub before: Vec<Document>,
    /// How often the command is given.
    pub times: usize,
    /// More flags for Aviary, where the command has no words for it.
    pub flags: Vec<&'static str>,
    /// The first servers whose own engine can do it.
    pub since: (i32, i32),
    pub expect: Expect,
}

/// A case that differs, of which it is still to be said what Aviary does.
pub struct Differing {
    case: Case,
    why: &'static str,
}

/// A case that writes inline and is the same.
pub fn case(name: &'static str, input: &'static str, map: &str, reduce: &str) -> Case {
    Case {
        name,
        input,
        command: doc! {
            "map": Bson::JavaScriptCode(map.into()),
            "reduce": Bson::JavaScriptCode(reduce.into()),
        },
        out: Out::Inline,
        before: Vec::new(),
        times: 1,
        flags: Vec::new(),
        since: (0, 0),
        expect: Expect::Same,
    }
}

impl Case {
    pub fn with(mut self, field: &str, value: impl Into<Bson>) -> Self {
        self.command.insert(field, value);
        self
    }

    /// For servers from this version on only; older ones refuse it.
    pub fn since(mut self, major: i32, minor: i32) -> Self {
        self.since = (major, minor);
        self
    }

    pub fn without(mut self, field: &str) -> Self {
        self.command.remove(field);
        self
    }

    pub fn finalize(self, text: &str) -> Self {
        self.with("finalize", Bson::JavaScriptCode(text.into()))
    }

    pub fn out(self, out: Out) -> Self {
        Self { out, ..self }
    }

    pub fn before(self, before: Vec<Document>) -> Self {
        Self { before, ..self }
    }

    pub fn twice(self) -> Self {
        Self { times: 2, ..self }
    }

    pub fn flags(self, flags: &[&'static str]) -> Self {
        Self { flags: flags.to_vec(), ..self }
    }

    pub fn fails(self, words: &'static str) -> Self {
        Self { expect: Expect::Fails(words), ..self }
    }

    pub fn differs(self, why: &'static str) -> Differing {
        Differing { case: self, why }
    }
}

impl Differing {
    pub fn gives(self, documents: impl IntoIterator<Item = Document>) -> Case {
        self.expecting(Ours::Gives(documents.into_iter().collect()))
    }

    pub fn refuses(self, words: &'static str) -> Case {
        self.expecting(Ours::Refuses(words))
    }

    fn expecting(self, ours: Ours) -> Case {
        Case { expect: Expect::Differs(self.why, ours), ..self.case }
    }
}
