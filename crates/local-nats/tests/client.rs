//! Just enough of the NATS protocol to check that a server is alive and keeps its data.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

pub(crate) struct Client {
    stream: BufReader<TcpStream>,
    /// The first line that the server sends: `INFO {…}`.
    pub(crate) greeting: String,
}

impl Client {
    pub(crate) fn connect(port: u16) -> io::Result<Client> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let mut client = Client { stream: BufReader::new(stream), greeting: String::new() };
        client.stream.read_line(&mut client.greeting)?;
        client.send("CONNECT {\"verbose\":false}\r\nSUB inbox 1\r\n");
        Ok(client)
    }

    pub(crate) fn create_stream(&mut self, name: &str) {
        let answer = self.ask(&format!("STREAM.CREATE.{name}"), &format!("{{\"name\":\"{name}\"}}"));
        assert!(answer.contains("\"did_create\":true"), "{answer}");
    }

    pub(crate) fn streams(&mut self) -> String {
        self.ask("STREAM.NAMES", "")
    }

    fn ask(&mut self, api: &str, body: &str) -> String {
        self.send(&format!("PUB $JS.API.{api} inbox {}\r\n{body}\r\n", body.len()));
        let mut line = String::new();
        while !line.starts_with("MSG") {
            line.clear();
            assert_ne!(self.stream.read_line(&mut line).unwrap(), 0, "the server has hung up");
        }
        line.clear();
        self.stream.read_line(&mut line).unwrap();
        line
    }

    fn send(&mut self, text: &str) {
        self.stream.get_mut().write_all(text.as_bytes()).unwrap();
    }
}
