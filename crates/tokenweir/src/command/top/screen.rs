//! The terminal: taken over on opening, given back on drop.

use std::{
    io::{Stdout, Write, stdout},
    time::Duration,
};

use crossterm::{
    cursor::{Hide, MoveTo, Show},
    event::{self, Event, KeyCode, KeyModifiers},
    execute, queue,
    style::{Attribute, Print, SetAttribute},
    terminal::{self, Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen},
};
use tokio::sync::mpsc;

/// Keys pressed and not yet taken.
const KEYS_MAX: usize = 16;
/// How soon the thread that waits for keys sees that nobody wants them any more.
const KEY_WAIT: Duration = Duration::from_millis(100);
/// Columns and lines that every terminal has.
const SIZE_UNKNOWN: (u16, u16) = (80, 24);
const HELP: &str = "s: sort by the next column  r: reverse  q: quit";

pub(super) enum Key {
    Sort,
    Reverse,
    /// The terminal has another size.
    Redraw,
    Quit,
}

pub(super) struct Screen(Stdout);

impl Screen {
    /// Takes over the terminal, and says which keys are pressed.
    pub(super) fn open() -> std::io::Result<(Self, mpsc::Receiver<Key>)> {
        terminal::enable_raw_mode()?;
        let mut screen = Self(stdout());
        execute!(screen.0, EnterAlternateScreen, Hide)?;
        let (sender, keys) = mpsc::channel(KEYS_MAX);
        std::thread::Builder::new().name("keys".to_owned()).spawn(move || read_keys(&sender))?;
        Ok((screen, keys))
    }

    /// Shows the summary and the heads, then as many of the rest as fit; a problem instead of the help.
    pub(super) fn show(&mut self, lines: &[String], problem: Option<&str>) -> std::io::Result<()> {
        // One that does not know its size, such as a serial line, says that it has none.
        let size = terminal::size().ok().filter(|(width, height)| *width > 0 && *height > 0);
        let (width, height) = size.unwrap_or(SIZE_UNKNOWN);
        let (width, height) = (usize::from(width), usize::from(height));
        let room = height.saturating_sub(1).max(1);
        queue!(self.0, MoveTo(0, 0))?;
        for (at, line) in lines.iter().take(room).enumerate() {
            let fits: String = line.chars().take(width).collect();
            // The heads stand out from the rows.
            let attribute = if at == 1 { Attribute::Reverse } else { Attribute::Reset };
            queue!(self.0, SetAttribute(attribute), Print(fits), SetAttribute(Attribute::Reset))?;
            queue!(self.0, Clear(ClearType::UntilNewLine), Print("\r\n"))?;
        }
        let hidden = lines.len().saturating_sub(room);
        let more = if hidden > 0 { format!("{hidden} more  ") } else { String::new() };
        let foot =
            problem.map_or_else(|| format!("{more}{HELP}"), |problem| format!("! {problem}"));
        let fits: String = foot.chars().take(width).collect();
        queue!(self.0, Print(fits), Clear(ClearType::FromCursorDown))?;
        self.0.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // What cannot be given back is lost anyway.
        let _ = execute!(self.0, Show, LeaveAlternateScreen);
        let _ = terminal::disable_raw_mode();
    }
}

fn read_keys(keys: &mpsc::Sender<Key>) {
    while !keys.is_closed() {
        match event::poll(KEY_WAIT) {
            Ok(false) => {}
            Ok(true) => {
                let Ok(event) = event::read() else { return };
                if let Some(key) = meaning(&event)
                    && keys.blocking_send(key).is_err()
                {
                    return;
                }
            }
            Err(_) => return,
        }
    }
}

fn meaning(event: &Event) -> Option<Key> {
    let Event::Key(key) = event else {
        return matches!(event, Event::Resize(..)).then_some(Key::Redraw);
    };
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    match key.code {
        KeyCode::Char('c') if control => Some(Key::Quit),
        KeyCode::Char('q') | KeyCode::Esc => Some(Key::Quit),
        KeyCode::Char('s') => Some(Key::Sort),
        KeyCode::Char('r') => Some(Key::Reverse),
        _ => None,
    }
}
