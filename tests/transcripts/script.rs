//! A transcript file, parsed: its header and its steps.

use crate::support::server::Product;
use crate::transcripts::pattern::Pattern;

/// One transcript.
#[derive(Debug, Default)]
pub struct Script {
    /// Arguments of the server, split at spaces; `{name}` stands for the path of a file below.
    pub args: Vec<String>,
    /// Files the server is started with: name and contents.
    pub files: Vec<(String, Pattern)>,
    pub steps: Vec<Step>,
}

/// One line of the conversation.
#[derive(Debug)]
pub struct Step {
    /// Line number in the file, from 1.
    pub line: usize,
    pub action: Action,
    /// Set if the line is for one server only.
    pub only: Option<Only>,
}

/// Limits a step to one server, with the id of the reason in `DIFFERENCES.md`.
#[derive(Debug)]
pub struct Only {
    pub product: Product,
    pub reason: String,
}

#[derive(Debug)]
pub enum Action {
    /// `>` and `>-`: send this, as a line or as it is.
    Send { text: Pattern, line_end: bool },
    /// `<` and `<-`: expect this next, as a line or as it is.
    Expect { text: Pattern, line_end: bool },
    /// `<...`: take lines up to and with this one; together they are the block.
    Block(Pattern),
    /// `<+` and `<!`: some line, or no line, of the last block matches.
    InBlock { text: Pattern, wanted: bool },
    /// `@ name`: go on with this connection, opening it if need be.
    Switch(String),
    /// `= close`: the server closes here.
    Close,
    /// `= leave`: what else arrives on this connection does not matter.
    Leave,
    /// `= exit 0`: the server process ends with this code.
    Exit(i32),
}

impl Script {
    /// # Errors
    ///
    /// The line number and what is wrong there.
    pub fn parse(text: &str) -> Result<Script, String> {
        let mut script = Script::default();
        for (index, line) in text.lines().enumerate() {
            script.add_line(index + 1, line).map_err(|error| format!("line {}: {error}", index + 1))?;
        }
        Ok(script)
    }

    fn add_line(&mut self, number: usize, line: &str) -> Result<(), String> {
        if line.is_empty() || line.starts_with('#') {
            return Ok(());
        }
        if let Some(args) = line.strip_prefix("args: ") {
            self.args = args.split(' ').map(str::to_owned).collect();
        } else if let Some((name, contents)) =
            line.strip_prefix("file ").and_then(|rest| rest.split_once(": "))
        {
            self.files.push((name.to_owned(), Pattern::parse(contents)?));
        } else {
            let (action, only) = parse_step(line)?;
            self.steps.push(Step { line: number, action, only });
        }
        Ok(())
    }
}

fn parse_step(line: &str) -> Result<(Action, Option<Only>), String> {
    let (mark, text) = line.split_once(' ').unwrap_or((line, ""));
    let (mark, only) = parse_only(mark)?;
    let action = match mark.as_str() {
        ">" => Action::Send { text: Pattern::parse(text)?, line_end: true },
        ">-" => Action::Send { text: Pattern::parse(text)?, line_end: false },
        "<" => Action::Expect { text: Pattern::parse(text)?, line_end: true },
        "<-" => Action::Expect { text: Pattern::parse(text)?, line_end: false },
        "<..." => Action::Block(Pattern::parse(text)?),
        "<+" => Action::InBlock { text: Pattern::parse(text)?, wanted: true },
        "<!" => Action::InBlock { text: Pattern::parse(text)?, wanted: false },
        "@" => Action::Switch(text.to_owned()),
        "=" => match text.split_once(' ') {
            None if text == "close" => Action::Close,
            None if text == "leave" => Action::Leave,
            Some(("exit", code)) => {
                Action::Exit(code.parse().map_err(|_| format!("`{code}` is not a code"))?)
            }
            _ => return Err(format!("nothing is called `= {text}`")),
        },
        _ => return Err(format!("`{mark}` is not a mark")),
    };
    Ok((action, only))
}

/// Splits `<m[reason]+` into `<+` and its limit.
fn parse_only(mark: &str) -> Result<(String, Option<Only>), String> {
    let Some((head, tail)) = mark.split_once('[') else {
        return Ok((mark.to_owned(), None));
    };
    let (reason, tail) = tail.split_once(']').ok_or("`[` without `]`")?;
    let (head, product) = match (head.strip_suffix('m'), head.strip_suffix('f')) {
        (Some(head), _) => (head, Product::Memcached),
        (_, Some(head)) => (head, Product::Filbert),
        _ => return Err("`m` or `f` stands before `[`".to_owned()),
    };
    Ok((format!("{head}{tail}"), Some(Only { product, reason: reason.to_owned() })))
}
