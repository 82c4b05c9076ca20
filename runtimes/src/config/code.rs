//! Whether a function's code is where its config says.

use std::path::PathBuf;

use super::{FunctionConfig, RuntimeKind};

/// Why a function has no code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodeError {
    #[error("the code folder does not exist")]
    NoFolder { folder: PathBuf },
    #[error("the code is not a folder")]
    NotAFolder { path: PathBuf },
    /// None of these files is in the code folder.
    #[error("there is no {} in the code folder", tried.join(" and no "))]
    NoHandler { tried: Vec<String> },
}

impl FunctionConfig {
    /// Looks for the folder and for the file that holds the handler. Nothing is loaded.
    pub fn check_code(&self) -> Result<(), CodeError> {
        if !self.code.exists() {
            return Err(CodeError::NoFolder { folder: self.code.clone() });
        }
        if !self.code.is_dir() {
            return Err(CodeError::NotAFolder { path: self.code.clone() });
        }
        let tried = self.handler_files();
        if tried.iter().any(|file| self.code.join(file).is_file()) {
            Ok(())
        } else {
            Err(CodeError::NoHandler { tried })
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
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn function(handler: &str, files: &[&str]) -> (tempfile::TempDir, FunctionConfig) {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let mut config = FunctionConfig::new(RuntimeKind::Python, folder.path().to_owned());
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
}
