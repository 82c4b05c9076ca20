//! Whether a function's code is where its config says.

use std::{
    env,
    path::{Path, PathBuf},
};

use super::{FunctionConfig, RuntimeKind};
use crate::{
    archive::{self, BadArchive},
    command, entry,
};

/// Why a function has no code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodeError {
    /// Neither a folder nor a zip file.
    #[error("the code does not exist")]
    NoFolder { folder: PathBuf },
    #[error("the code is not a folder")]
    NotAFolder { path: PathBuf },
    #[error("{reason}")]
    Archive { reason: BadArchive },
    /// None of these files is in the code folder.
    #[error("there is no {} in the code folder", tried.join(" and no "))]
    NoHandler { tried: Vec<String> },
    /// This program is neither in the code folder nor on `PATH`.
    #[error("there is no `{program}` in the code folder and none on PATH")]
    NotOnPath { program: String },
    /// This file is in the code folder and cannot be executed.
    #[error("{} is not executable", file.display())]
    NotExecutable { file: PathBuf },
}

impl FunctionConfig {
    /// Looks for the folder and for the file that holds the handler. Nothing is loaded.
    pub fn check_code(&self) -> Result<(), CodeError> {
        if !self.code.exists() {
            return Err(CodeError::NoFolder { folder: self.code.clone() });
        }
        if archive::is_archive(&self.code) {
            return self.check_archive();
        }
        if !self.code.is_dir() {
            return Err(CodeError::NotAFolder { path: self.code.clone() });
        }
        let tried = self.handler_files();
        if matches!(self.runtime, RuntimeKind::Provided | RuntimeKind::Command) {
            return self.check_program(tried);
        }
        if tried.iter().any(|file| self.code.join(file).is_file()) {
            Ok(())
        } else {
            Err(CodeError::NoHandler { tried })
        }
    }

    /// The same of an archive.
    fn check_archive(&self) -> Result<(), CodeError> {
        let files = archive::files(&self.code).map_err(|reason| CodeError::Archive { reason })?;
        let tried = self.handler_files();
        let file = |name: &String| files.iter().find(|(path, _)| *path == Path::new(name.trim_start_matches("./")));
        let is_program = matches!(self.runtime, RuntimeKind::Provided | RuntimeKind::Command);
        match tried.iter().find_map(file) {
            Some((path, false)) if is_program => Err(CodeError::NotExecutable { file: path.clone() }),
            Some(_) => Ok(()),
            None if self.runtime == RuntimeKind::Command => self.check_program(tried),
            None => Err(CodeError::NoHandler { tried }),
        }
    }

    /// The files the handler may be in, relative to the code folder.
    fn handler_files(&self) -> Vec<String> {
        match self.runtime {
            RuntimeKind::Python => {
                let module = self.handler.rsplit_once('.').map_or(self.handler.as_str(), |(module, _)| module);
                let path = module.replace('.', "/");
                vec![format!("{path}.py"), format!("{path}/__init__.py")]
            }
            RuntimeKind::Node => {
                let (folder, file) = self.handler.rsplit_once('/').unwrap_or((".", &self.handler));
                let file = file.split('.').next().unwrap_or_default();
                let path = if folder == "." { file.to_owned() } else { format!("{folder}/{file}") };
                ["js", "mjs", "cjs"].map(|extension| format!("{path}.{extension}")).into()
            }
            RuntimeKind::Provided => vec![self.handler.clone()],
            RuntimeKind::Command | RuntimeKind::Wasm => {
                command::words(&self.handler).unwrap_or_default().into_iter().take(1).collect()
            }
        }
    }

    /// A program is a file that can be executed; a command's may also be on `PATH`.
    fn check_program(&self, tried: Vec<String>) -> Result<(), CodeError> {
        let Some(name) = tried.first() else { return Ok(()) };
        let file = self.code.join(name);
        let path = env::var_os("PATH").unwrap_or_default();
        if entry::is_executable(&file) {
            Ok(())
        } else if file.is_file() {
            Err(CodeError::NotExecutable { file })
        } else if self.runtime == RuntimeKind::Provided || name.contains('/') {
            Err(CodeError::NoHandler { tried })
        } else if command::on_path(name, &path).is_some() {
            Ok(())
        } else {
            Err(CodeError::NotOnPath { program: name.clone() })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn function(handler: &str, files: &[&str]) -> (tempfile::TempDir, FunctionConfig) {
        function_of(RuntimeKind::Python, handler, files)
    }

    fn function_of(runtime: RuntimeKind, handler: &str, files: &[&str]) -> (tempfile::TempDir, FunctionConfig) {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let mut config = FunctionConfig::new(runtime, folder.path().to_owned());
        handler.clone_into(&mut config.handler);
        (folder, config)
    }

    #[test]
    fn a_python_handler_is_in_a_module_or_in_a_package() {
        for (handler, file) in
            [("app.handler", "app.py"), ("app.handler", "app/__init__.py"), ("shop.price.run", "shop/price.py")]
        {
            let (_folder, config) = function(handler, &[file]);
            assert_eq!(config.check_code(), Ok(()), "{handler} in {file}");
        }
    }

    #[test]
    fn what_was_looked_for_is_said() {
        let (_folder, config) = function("app.handler", &["main.py"]);
        let error = config.check_code().unwrap_err();
        assert_eq!(error.to_string(), "there is no app.py and no app/__init__.py in the code folder");
    }

    #[test]
    fn a_folder_that_is_missing_or_a_file_is_no_code_folder() {
        let (folder, mut config) = function("app.handler", &["app.py"]);
        config.code = folder.path().join("nowhere");
        assert!(matches!(config.check_code(), Err(CodeError::NoFolder { .. })));
        config.code = folder.path().join("app.py");
        assert!(matches!(config.check_code(), Err(CodeError::NotAFolder { .. })));
    }

    #[test]
    fn a_node_handler_is_in_a_script_or_a_module() {
        for (handler, file) in
            [("index.handler", "index.js"), ("index.handler", "index.mjs"), ("src/app.run.it", "src/app.cjs")]
        {
            let (_folder, config) = function_of(RuntimeKind::Node, handler, &[file]);
            assert_eq!(config.check_code(), Ok(()), "{handler} in {file}");
        }
        let (_folder, config) = function_of(RuntimeKind::Node, "index.handler", &["app.js"]);
        let said = config.check_code().unwrap_err().to_string();
        assert_eq!(said, "there is no index.js and no index.mjs and no index.cjs in the code folder");
    }

    #[test]
    fn a_program_must_be_executable_and_a_command_may_be_on_the_path() {
        let (_folder, config) = function_of(RuntimeKind::Provided, "bootstrap", &["bootstrap"]);
        assert!(matches!(config.check_code(), Err(CodeError::NotExecutable { .. })));
        let (_folder, config) = function_of(RuntimeKind::Provided, "sh", &[]);
        assert!(matches!(config.check_code(), Err(CodeError::NoHandler { .. })));
        let (_folder, config) = function_of(RuntimeKind::Command, "sh -c 'exit 3'", &[]);
        assert_eq!(config.check_code(), Ok(()));
        let (_folder, config) = function_of(RuntimeKind::Command, "no-such-program --daily", &[]);
        assert!(matches!(config.check_code(), Err(CodeError::NotOnPath { program }) if program == "no-such-program"));
        let (_folder, config) = function_of(RuntimeKind::Command, "./sh", &[]);
        assert!(matches!(config.check_code(), Err(CodeError::NoHandler { .. })));
    }
}
