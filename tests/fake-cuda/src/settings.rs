//! Which device there is, and what is to go wrong on it: read from an environment variable by the tests' programs.

use std::env;

/// The variable with the settings: `key=value` pairs with commas between them.
pub const VARIABLE: &str = "LLMC_FAKE_CUDA";

/// The device and its driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `devices=N`: how many there are, all alike.
    pub devices: u32,
    /// `capability=MAJOR.MINOR`.
    pub capability: (u32, u32),
    /// `memory=MIB`: device memory in all, in bytes here.
    pub memory: u64,
    /// `driver=1000 * MAJOR + 10 * MINOR`: the newest CUDA that the driver knows.
    pub driver: u32,
    /// `fault=TEXT`: kernels with this in their name fail when they run.
    pub fault: Option<String>,
    /// `graphs=N`: so many graphs can be made ready to run, then memory is out.
    pub graphs: Option<u64>,
    /// `results=N`: so many copies to the host succeed, then the device is lost.
    pub results: Option<u64>,
    /// `shared=KIB`: shared memory that a block may ask for, in bytes here, instead of what such devices have.
    pub shared: Option<u32>,
    /// `jit=TEXT`: the driver's compiler refuses every module and logs this.
    pub jit: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            devices: 1,
            capability: (8, 0),
            memory: 4 << 30,
            driver: 12040,
            fault: None,
            graphs: None,
            results: None,
            shared: None,
            jit: None,
        }
    }
}

impl Settings {
    /// What the environment says; the default where it says nothing.
    pub fn from_environment() -> Result<Settings, String> {
        match env::var(VARIABLE) {
            Ok(text) => Settings::parse(&text).map_err(|problem| format!("{VARIABLE}: {problem}")),
            Err(_) => Ok(Settings::default()),
        }
    }

    fn parse(text: &str) -> Result<Settings, String> {
        let mut settings = Settings::default();
        for pair in text.split(',').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').ok_or_else(|| format!("`{pair}` is not key=value"))?;
            let number = |text: &str| text.parse::<u32>().map_err(|_| format!("`{text}` in `{pair}` is no number"));
            match key {
                "devices" => settings.devices = number(value)?,
                "capability" => {
                    let (major, minor) = value.split_once('.').ok_or_else(|| format!("`{pair}` needs MAJOR.MINOR"))?;
                    settings.capability = (number(major)?, number(minor)?);
                }
                "memory" => settings.memory = u64::from(number(value)?) << 20,
                "driver" => settings.driver = number(value)?,
                "fault" => settings.fault = Some(value.to_owned()),
                "graphs" => settings.graphs = Some(number(value)?.into()),
                "results" => settings.results = Some(number(value)?.into()),
                "shared" => settings.shared = Some(number(value)?.saturating_mul(1024)),
                "jit" => settings.jit = Some(value.to_owned()),
                _ => {
                    let known = "devices, capability, memory, driver, fault, graphs, results, shared or jit";
                    return Err(format!("`{key}` is no setting: {known}"));
                }
            }
        }
        Ok(settings)
    }

    /// What the device calls itself.
    pub fn device_name(&self) -> String {
        let model = match self.capability {
            (7, 5) => "T4",
            (8, 0) => "A100",
            (8, 9) => "L4",
            (9, 0) => "H100",
            _ => "GPU",
        };
        format!("llmc fake {model}")
    }

    /// Shared memory that a block may ask for, in bytes.
    pub fn shared_per_block(&self) -> u32 {
        let kibibytes = match self.capability {
            (7, _) => 64,
            (8, 0 | 7) => 163,
            (8, _) | (12, _) => 99,
            _ => 227,
        };
        self.shared.unwrap_or(1024 * kibibytes)
    }

    /// Shared memory of a multiprocessor, in bytes.
    pub fn shared_per_multiprocessor(&self) -> u32 {
        self.shared_per_block() + if self.capability.0 == 7 { 0 } else { 1024 }
    }

    /// Multiprocessors.
    pub fn multiprocessors(&self) -> u32 {
        match self.capability {
            (7, _) => 40,
            (8, 0) => 108,
            (8, _) => 58,
            _ => 132,
        }
    }

    /// Whether the driver's compiler knows a PTX version. PTX 8.x came with CUDA 12, 7.x with CUDA 11, of about the same
    /// minor version.
    pub fn knows_ptx(&self, version: (u32, u32)) -> bool {
        let (major, minor) = (self.driver / 1000, self.driver % 1000 / 10);
        version <= (major.saturating_sub(4), minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_and_mistakes_named() {
        let settings = Settings::parse("capability=9.0,memory=64,driver=11040,fault=attend").unwrap();
        assert_eq!((settings.capability, settings.memory, settings.driver), ((9, 0), 64 << 20, 11040));
        assert_eq!(settings.fault.as_deref(), Some("attend"));
        let settings = Settings::parse("graphs=2,results=3,shared=48").unwrap();
        assert_eq!((settings.graphs, settings.results, settings.shared_per_block()), (Some(2), Some(3), 48 << 10));
        assert_eq!(Settings::parse("").unwrap(), Settings::default());
        for (text, named) in
            [("capability=9", "MAJOR.MINOR"), ("memory=many", "`many`"), ("x=1", "`x`"), ("x", "key=value")]
        {
            assert!(Settings::parse(text).unwrap_err().contains(named), "{text}");
        }
    }

    #[test]
    fn drivers_know_the_ptx_of_their_time() {
        let driver = |driver| Settings { driver, ..Settings::default() };
        assert!(driver(12000).knows_ptx((8, 0)) && !driver(12000).knows_ptx((8, 4)) && driver(12040).knows_ptx((7, 8)));
        assert!(!driver(11040).knows_ptx((8, 0)));
    }
}
