//! How the files of `src/` import each other: without circles, and only downwards. That ARCHITECTURE.md lists them. And how
//! long files and functions are.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::tree::files_below;

/// The name of a module, such as `store::shard`; the root is empty.
type Module = Vec<String>;

#[test]
fn files_import_each_other_without_circles() {
    let files = files();
    let imports: BTreeMap<Module, BTreeSet<Module>> =
        files.iter().map(|(module, file)| (module.clone(), imports(module, file, &files))).collect();
    let circles = circles(&imports);
    let shown: Vec<String> = circles.iter().map(|circle| show(circle, &imports)).collect();
    assert!(circles.is_empty(), "\n{}", shown.join("\n"));
}

fn show(circle: &[Module], imports: &BTreeMap<Module, BTreeSet<Module>>) -> String {
    let line = |module: &Module| {
        let inside = imports[module].iter().filter(|import| circle.contains(import));
        let names: Vec<String> = inside.map(|import| import.join("::")).collect();
        format!("{} imports {}\n", module.join("::"), names.join(", "))
    };
    circle.iter().map(line).collect()
}

/// Every file of the product by the name of its module. What only its tests consist of is left out.
fn files() -> BTreeMap<Module, PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let paths = files_below(&root, "rs", is_named_tests).into_iter();
    paths.filter(|path| !path.ends_with("main.rs")).map(|path| (module(&root, &path), path)).collect()
}

fn module(root: &Path, path: &Path) -> Module {
    let below = path.strip_prefix(root).expect("it was found there").with_extension("");
    let mut module: Module = below.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if module.last().is_some_and(|last| last == "mod" || last == "lib") {
        module.pop();
    }
    module
}

fn is_named_tests(path: &Path) -> bool {
    path.file_stem().is_some_and(|stem| stem == "tests")
}

/// The other files that a file names, in `use` or in the middle of a line; but not what it only passes on (`pub use`).
fn imports(module: &Module, file: &Path, files: &BTreeMap<Module, PathBuf>) -> BTreeSet<Module> {
    let text = fs::read_to_string(file).expect("the file was there a moment ago");
    let code: String = text
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .take_while(|line| *line != "mod tests {")
        // Who may see something is no import.
        .map(|line| format!("{}\n", line.replace("pub(in crate::", "pub(")))
        .collect();
    let mut paths = Vec::new();
    for statement in code.split(';') {
        let words = statement.trim_start();
        let start = words.rfind("\nuse ").map_or(0, |at| at + 1);
        if let Some(tree) = words[start..].strip_prefix("use ") {
            let tree: String = tree.split_whitespace().collect::<Vec<_>>().join(" ");
            expand("", &tree, &mut paths);
        }
    }
    for (at, _) in code.match_indices("crate::") {
        let path: String =
            code[at..].chars().take_while(|&c| c.is_alphanumeric() || c == '_' || c == ':').collect();
        paths.push(path);
    }
    let named = paths.iter().filter_map(|path| resolve(path, module, files));
    named.filter(|import| import != module).collect()
}

/// Every path of a tree such as `crate::a::{self, b::{C, D}}`.
fn expand(before: &str, tree: &str, paths: &mut Vec<String>) {
    let Some((stem, rest)) = tree.split_once('{') else {
        return paths.push(format!("{before}{}", tree.split(" as ").next().unwrap_or(tree).trim()));
    };
    let inside = rest.trim_end().strip_suffix('}').unwrap_or(rest);
    let (mut depth, mut start) = (0, 0);
    let before = format!("{before}{}", stem.trim());
    for (at, letter) in inside.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                expand(&before, &inside[start..at], paths);
                start = at + 1;
            }
            _ => {}
        }
    }
    if !inside[start..].trim().is_empty() {
        expand(&before, &inside[start..], paths);
    }
}

/// The file in which what a path names is to be found; `None` for what is no file of ours.
fn resolve(path: &str, module: &Module, files: &BTreeMap<Module, PathBuf>) -> Option<Module> {
    let mut parts = path.split("::").map(str::trim).peekable();
    let mut at = match *parts.peek()? {
        "crate" => {
            parts.next();
            Module::new()
        }
        "self" => {
            parts.next();
            module.clone()
        }
        "super" => {
            let mut at = module.clone();
            while parts.next_if_eq(&"super").is_some() {
                at.pop();
            }
            at
        }
        child => {
            let inside: Module = module.iter().cloned().chain([child.to_owned()]).collect();
            return files.contains_key(&inside).then_some(inside);
        }
    };
    for part in parts {
        let inside: Module = at.iter().cloned().chain([part.to_owned()]).collect();
        if !files.contains_key(&inside) {
            break;
        }
        at = inside;
    }
    files.contains_key(&at).then_some(at)
}

/// Sets of modules each of which reaches all others of its set.
fn circles(imports: &BTreeMap<Module, BTreeSet<Module>>) -> Vec<Vec<Module>> {
    let reached = |from: &Module| {
        let mut seen = BTreeSet::new();
        let mut next = vec![from];
        while let Some(module) = next.pop() {
            for import in imports.get(module).into_iter().flatten() {
                if seen.insert(import.clone()) {
                    next.push(import);
                }
            }
        }
        seen
    };
    let reach: BTreeMap<&Module, BTreeSet<Module>> =
        imports.keys().map(|module| (module, reached(module))).collect();
    let mut circles: BTreeSet<Vec<Module>> = BTreeSet::new();
    for (module, seen) in &reach {
        if seen.contains(*module) {
            let circle = seen.iter().filter(|other| reach[other].contains(*module));
            circles.insert(circle.cloned().collect());
        }
    }
    circles.into_iter().collect()
}

/// The product's files by the list in ARCHITECTURE.md, each with the floor of its room, if it has one.
fn listed() -> BTreeMap<String, Option<u8>> {
    let list = architecture();
    let list = list.split_once("\n## The rooms\n").expect("it has that heading").1;
    let list = list.split_once("\n## ").map_or(list, |(list, _)| list);
    let (mut folder, mut floor, mut is_bold) = (String::new(), None, false);
    let mut listed = BTreeMap::new();
    let bullets = list.split_once("\n- ").expect("it is a list").1;
    // What stands before a name, and the name.
    let mut parts = bullets.split('`');
    while let (Some(before), Some(name)) = (parts.next(), parts.next()) {
        is_bold ^= before.matches("**").count() % 2 == 1;
        if is_bold {
            let number = before.rsplit("**").next().unwrap_or_default().trim();
            floor = if number.is_empty() { floor } else { number.parse().ok() };
            folder = if name.ends_with('/') { name.to_owned() } else { String::new() };
            listed.insert(name.trim_end_matches('/').to_owned(), floor);
        } else {
            listed.insert(format!("{folder}{name}"), floor);
        }
    }
    listed
}

fn architecture() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md")).expect("it is there")
}

#[test]
fn the_architecture_lists_every_file() {
    let files = files().into_iter().filter(|(module, path)| !module.is_empty() && !is_test_module(path));
    let mut files: BTreeSet<String> = files.map(|(module, _)| module.join("/")).collect();
    files.extend(["lib", "main"].map(str::to_owned));
    let listed: BTreeSet<String> = listed().into_keys().collect();
    let (missing, stale): (Vec<_>, Vec<_>) =
        (files.difference(&listed).collect(), listed.difference(&files).collect());
    assert!(
        missing.is_empty() && stale.is_empty(),
        "not listed: {missing:?}; listed, but not there: {stale:?}"
    );
    let lines = architecture().lines().count();
    assert!(lines <= ARCHITECTURE_LINES_MAX, "{lines} lines");
}

#[test]
fn a_room_imports_rooms_of_lower_floors_alone() {
    let (files, listed) = (files(), listed());
    let floor = |module: &Module| listed.get(module.first()?).copied().flatten();
    let mut wrong = Vec::new();
    for (module, file) in &files {
        let Some(own) = floor(module) else { continue };
        for import in imports(module, file, &files) {
            let is_outside = import.first().is_some_and(|room| Some(room) != module.first());
            if is_outside && floor(&import).is_none_or(|other| other >= own) {
                wrong.push(format!("{} imports {}", module.join("::"), import.join("::")));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The safety rules by which nodes agree have labels, S1 and so on: those that code cites are those of the document.
#[test]
fn code_cites_the_safety_rules_that_there_are() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = fs::read_to_string(root.join("docs/design/membership.md")).expect("it is there");
    let told: BTreeSet<String> = document
        .lines()
        .filter_map(|line| Some(line.strip_prefix("| **")?.split_once("**")?.0.to_owned()))
        .collect();
    let mut cited = BTreeSet::new();
    for path in files().values().filter(|path| path.starts_with(root.join("src/cluster"))) {
        let text = fs::read_to_string(path).expect("the file was there a moment ago");
        let comments = text.lines().filter_map(|line| Some(line.split_once("//")?.1));
        let words = comments.flat_map(|comment| comment.split(|letter: char| !letter.is_alphanumeric()));
        cited.extend(words.filter(|word| is_label(word)).map(str::to_owned));
    }
    assert_eq!(told, cited);
    assert!(told.len() >= 7, "{told:?}");
}

fn is_label(word: &str) -> bool {
    word.strip_prefix('S').is_some_and(|number| number.len() == 1 && number.parse::<u8>().is_ok())
}

/// Lines of ARCHITECTURE.md: a newcomer reads all of it.
const ARCHITECTURE_LINES_MAX: usize = 150;

/// Lines of a file, and of a function, that are not said to be more.
const FILE_LINES_MAX: usize = 400;
const FUNCTION_LINES_MAX: usize = 60;

/// What is longer, and why: `path` for a file, `path::function` for a function. What is within its limit must go from
/// here.
const LONGER: &[(&str, &str)] = &[];

/// Of the product, of the benches and of what tests stand on. Every line counts, comments and blank ones, too; of a
/// function from its `fn` to its last brace. Tests do not count: no module `tests`, in a file or beside one, and none
/// that `#[cfg(test)]` marks; nor what stands in `tests/` itself, where a case may be a long story.
#[test]
fn files_and_functions_are_short() {
    let mut found = Vec::new();
    for path in sources() {
        let text = fs::read_to_string(&path).expect("the file was there a moment ago");
        let name = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).expect("it was found there").display();
        let code = without_tests(&text);
        if code.len() > FILE_LINES_MAX {
            found.push((name.to_string(), code.len()));
        }
        let functions = functions(&code).into_iter().filter(|&(_, lines)| lines > FUNCTION_LINES_MAX);
        found.extend(functions.map(|(function, lines)| (format!("{name}::{function}"), lines)));
    }
    found.sort_unstable();
    let names: BTreeSet<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
    let allowed: BTreeSet<&str> = LONGER.iter().map(|&(name, _)| name).collect();
    let too_long: Vec<_> = found.iter().filter(|(name, _)| !allowed.contains(name.as_str())).collect();
    assert!(too_long.is_empty(), "split it, or give the reason in LONGER: {too_long:?}");
    let short: Vec<_> = allowed.difference(&names).collect();
    assert!(short.is_empty(), "these are short, and must go from LONGER: {short:?}");
}

/// Every file whose length matters.
fn sources() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let skipped = |path: &Path| is_named_tests(path) || is_test_module(path);
    ["src", "benches", "tests/support"]
        .into_iter()
        .flat_map(|folder| files_below(&root.join(folder), "rs", skipped))
        .collect()
}

/// Whether `x/y.rs` is declared in `x.rs` as a module of the tests.
fn is_test_module(path: &Path) -> bool {
    let parent = path.parent().expect("a file is in a folder").with_extension("rs");
    let name = path.file_stem().expect("every file has a name").to_string_lossy();
    let declared = format!("#[cfg(test)]\nmod {name};");
    fs::read_to_string(parent).is_ok_and(|text| text.contains(&declared))
}

/// The lines before the module `tests`, which stands last.
fn without_tests(text: &str) -> Vec<&str> {
    text.lines().take_while(|line| !line.ends_with("mod tests {")).collect()
}

/// Every function with a body, as rustfmt lays it out, and how many lines it has.
fn functions(code: &[&str]) -> Vec<(String, usize)> {
    let mut functions = Vec::new();
    for (start, line) in code.iter().enumerate() {
        let words = line.trim_start();
        let Some((before, after)) = words.split_once("fn ") else { continue };
        let is_declaration = before.split_whitespace().all(|word| {
            word.starts_with("pub") || ["const", "async", "unsafe"].contains(&word) || word.ends_with(')')
        });
        if !is_declaration || line.ends_with('}') || line.ends_with(';') {
            continue;
        }
        let name = after.chars().take_while(|&c| c.is_alphanumeric() || c == '_').collect();
        let indent = &line[..line.len() - words.len()];
        let end = code[start..].iter().position(|line| {
            line.strip_prefix(indent)
                .is_some_and(|rest| rest.starts_with('}') || rest.starts_with(')') && rest.ends_with(';'))
        });
        // Without a body, in a trait, it ends with its parentheses.
        functions.push((name, end.expect("rustfmt closes a function where it began") + 1));
    }
    functions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trees_of_imports_are_taken_apart() {
        let mut paths = Vec::new();
        expand("", "crate::a::{self, b::{C, D as E}, f}", &mut paths);
        assert_eq!(paths, ["crate::a::self", "crate::a::b::C", "crate::a::b::D", "crate::a::f"]);
    }

    #[test]
    fn functions_are_measured_from_end_to_end() {
        let text = "impl A {\n    pub(super) async fn one(\n        a: u8,\n    ) {\n        b();\n    }\n\n    fn two(&self) {}\n}\n";
        let text = format!("{text}fn three() {{\n    let fn_is = a;\n}}\n#[cfg(test)]\nmod tests {{\n");
        assert_eq!(functions(&without_tests(&text)), [("one".to_owned(), 5), ("three".to_owned(), 3)]);
    }

    #[test]
    fn a_circle_is_found_and_what_only_leads_to_it_is_not() {
        let module = |name: &str| vec![name.to_owned()];
        let graph = [("a", vec!["b"]), ("b", vec!["c"]), ("c", vec!["b"]), ("d", vec![])];
        let imports = graph
            .map(|(name, to)| (module(name), to.into_iter().map(module).collect::<BTreeSet<_>>()))
            .into_iter()
            .collect();
        assert_eq!(circles(&imports), [vec![module("b"), module("c")]]);
    }
}
