"""Images by the interface of OpenAI."""
