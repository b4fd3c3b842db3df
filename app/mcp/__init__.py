"""Model Context Protocol: tools by which a program's model starts runs, waits for them and sees them."""
