package main

import "sync"

// How many sleeps are remembered.
const remembered = 1_024

// What became of each sleep, by its name.
type sleeps struct {
	mutex  sync.Mutex
	states map[string]string
}

func newSleeps() *sleeps {
	return &sleeps{states: make(map[string]string)}
}

// Begins a sleep, if there is room for it, and none with its name.
func (s *sleeps) begin(name string) bool {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if _, taken := s.states[name]; taken || len(s.states) >= remembered {
		return false
	}
	s.states[name] = "sleeping"
	return true
}

// Ends it. `told`: the service was told that nobody waits.
func (s *sleeps) end(name string, told bool) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.states[name] = "expired"
	if told {
		s.states[name] = "cancelled"
	}
}

func (s *sleeps) state(name string) (string, bool) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	state, there := s.states[name]
	return state, there
}
